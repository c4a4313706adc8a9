// The image with the colors of its labels over it.

// One word for each label: its color and how much of the image it covers; 0 where nothing is drawn.
function colorTable({labels, background}, hidden, opacity) {
  const alpha = Math.round(255 * opacity)
  const table = new Uint32Array(256)
  for (const {value, color: [red, green, blue]} of labels) {
    const isBare = value === background || hidden.has(value)
    table[value] = isBare ? 0 : alpha << 24 | blue << 16 | green << 8 | red
  }
  return table
}

function layerOf({mask, width, height}, table) {
  const pixels = new ImageData(width, height)
  const words = new Uint32Array(pixels.data.buffer)
  for (let i = 0; i < words.length; i++) words[i] = table[mask[i]]
  const layer = new OffscreenCanvas(width, height)
  layer.getContext('2d').putImageData(pixels, 0, 0)
  return layer
}

// Draw what is shown onto a canvas, at the image's size. `opacity` is 0 to 1.
export function drawOverlay(view, {card, image, answer, hidden}, opacity) {
  const context = view.getContext('2d')
  view.width = image.width
  view.height = image.height
  context.drawImage(image, 0, 0)
  if (!answer) return
  const table = colorTable(card, hidden, opacity)
  context.drawImage(layerOf(answer, table), 0, 0)
}
