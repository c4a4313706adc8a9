// The list of the labels in an image.

function switchFor(value, hidden, changed) {
  const box = document.createElement('input')
  box.type = 'checkbox'
  box.checked = !hidden.has(value)
  box.dataset.value = value
  box.onchange = () => {
    if (box.checked) hidden.delete(value)
    else hidden.add(value)
    changed()
  }
  return box
}

function patchOf(color) {
  const patch = document.createElement('i')
  patch.style.background = `rgb(${color})`
  return patch
}

function textIn(tag, text, title = '') {
  const element = document.createElement(tag)
  element.textContent = text
  element.title = title
  return element
}

// A row: a switch, the color, the name, the share of the area and the mean confidence.
// `hidden` is the set of labels that are switched off; `changed` is called after the switch has changed it.
export function legendRow({value, name, share, confidence}, color, hidden, changed) {
  const label = document.createElement('label')
  label.append(
    switchFor(value, hidden, changed),
    patchOf(color),
    textIn('span', name),
    textIn('small', `${(100 * share).toFixed(1)} %`, 'share of the area'),
    textIn('small', confidence.toFixed(2), 'mean confidence'),
  )
  const row = document.createElement('li')
  row.append(label)
  return row
}
