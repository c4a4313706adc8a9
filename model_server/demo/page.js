// The page: what is shown, and what its controls do. The model runs in an engine, of which there are two.
import {startCamera} from './camera.js'
import {legendRow} from './legend.js'
import {drawOverlay} from './overlay.js'
import {readPhoto, scaledDown} from './photo.js'

const engine = await import(`./${document.documentElement.dataset.engine}_engine.js`)
const element = id => document.getElementById(id)

// What is shown: the model's card, the image, the engine's answer to it, and the labels that are switched off.
export const shown = {card: null, image: null, answer: null, hidden: new Set()}

let opening = null    // the promise of the model's card
let stopCamera = null // while the camera runs
let newest = 0        // number of the newest image; answers to older ones come too late

function resizeMode() {
  return element('shape').checked ? 'pad' : 'square'
}

function showError(error) {
  element('error').textContent = error.message || String(error)
}

function clearError() {
  element('error').textContent = ''
}

// `done` is a share, 0 to 1.
function showProgress(done, what) {
  element('progress').hidden = done >= 1
  element('progress').value = done
  element('model').textContent = what
}

async function openEngine() {
  const card = await engine.open(showProgress)
  shown.card = card
  element('model').textContent = `${card.name}: ${card.labels.length} labels at ${card.size[1]}×${card.size[0]}, ${card.provider}`
  element('ask').hidden = true
}

// Until the model is there; one that could not be opened is tried again.
function modelReady() {
  opening ??= openEngine().catch(error => {
    opening = null
    showProgress(1, 'no model')
    if (error.status === 401) element('ask').hidden = false
    throw error
  })
  return opening
}

function draw() {
  if (!shown.image) return
  element('view').hidden = false
  element('hint').hidden = true
  drawOverlay(element('view'), shown, element('opacity').value / 100)
}

function list() {
  const {card, answer, hidden} = shown
  element('columns').hidden = !answer
  if (!answer) return
  const rows = answer.labels.map(label => legendRow(label, card.labels[label.value].color, hidden, draw))
  element('legend').replaceChildren(...rows)
}

// The image and its mask change together.
function take(answer, image) {
  shown.answer = answer
  shown.image = image
  const confidence = answer.labels.reduce((sum, label) => sum + label.share * label.confidence, 0)
  element('times').textContent = `confidence ${confidence.toFixed(2)}; ${answer.times}`
  list()
  draw()
}

function showImage(image) {
  shown.image = image
  shown.answer = null
  element('times').textContent = 'working …'
  draw()
}

async function predict(blob) {
  stop()
  clearError()
  const number = ++newest
  try {
    const photo = await readPhoto(blob)
    showImage(photo.image)
    await modelReady()
    const smaller = await scaledDown(photo, shown.card.limits)
    const answer = await engine.predict(smaller, resizeMode())
    if (number === newest) take(answer, smaller.image)
  } catch (error) {
    if (number === newest) giveUp(error)
  }
}

function giveUp(error) {
  element('times').textContent = ''
  showError(error)
}

function stop() {
  stopCamera?.()
  stopCamera = null
  element('camera').textContent = 'Camera'
}

function endStream(reason) {
  if (!stopCamera) return
  stop()
  showError(reason)
}

async function toggleCamera() {
  if (stopCamera) return stop()
  clearError()
  newest++
  try {
    await modelReady()
    stopCamera = await startCamera(element('video'), handlers => engine.openStream(resizeMode(), handlers), {
      answered: take,
      refused: showError,
      ended: endStream,
    })
    element('camera').textContent = 'Stop'
  } catch (error) {
    showError(error)
  }
}

async function predictRoom(address) {
  const response = await fetch(address)
  predict(await response.blob())
}

function connectField(field) {
  field.ondragover = event => {
    event.preventDefault()
    field.classList.add('over')
  }
  field.ondragleave = () => field.classList.remove('over')
  field.ondrop = event => {
    event.preventDefault()
    field.classList.remove('over')
    const file = event.dataTransfer.files[0]
    if (file) predict(file)
  }
}

function connectControls() {
  element('file').onchange = event => {
    const file = event.target.files[0]
    if (file) predict(file)
  }
  element('camera').onclick = toggleCamera
  element('opacity').oninput = draw
  element('token').onchange = () => {
    engine.useToken?.(element('token').value)
    modelReady().then(clearError, showError)
  }
  for (const button of element('rooms').children) {
    button.onclick = () => predictRoom(button.firstElementChild.src)
  }
}

function hideLabels(values) {
  shown.hidden = new Set(values)
  list()
  draw()
}

function connectLegend() {
  element('all').onclick = () => hideLabels([])
  element('none').onclick = () => hideLabels(shown.card?.labels.map(label => label.value) ?? [])
}

element('promise').textContent = engine.PROMISE
connectField(element('drop'))
connectControls()
connectLegend()
modelReady().catch(showError)
