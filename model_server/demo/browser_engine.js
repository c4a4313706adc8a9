// The engine that is the browser itself: onnxruntime-web runs the model here, and no photo leaves the machine.
// It does what `Predictor` of nbs_lib/predict.py does.
import {describe} from './describe.js'
import {crop, enlargeMask} from './enlarge.js'
import {loadBytes, loadJson, unpacked} from './loading.js'
import {letterbox, stretch, withoutAlpha} from './net_image.js'
import {pixelsOf} from './photo.js'
import {resize} from './resize.js'

export const PROMISE = 'It does not leave your machine: the model runs in this browser.'
const LIMITS = {side: 4096, pixels: 2 ** 23} // of a photo; a larger one is made smaller
let card = null
let runtime = null
let session = null

function address(name) {
  return new URL(name, import.meta.url).href
}

function checkBrowser() {
  if (typeof WebAssembly === 'undefined') {
    throw new Error('this browser has no WebAssembly, or it is switched off; the model needs it')
  }
}

// Both large files at once: {wasm, model}.
async function loadParts(description, report) {
  const total = description.wasm.bytes + description.model.bytes
  let loaded = 0
  const arrived = n => {
    loaded += n
    const megabytes = `${(loaded / 1e6).toFixed(1)} of ${(total / 1e6).toFixed(1)} MB`
    report(Math.min(loaded / total, 0.99), `loading the model: ${megabytes}`)
  }
  const parts = [description.wasm, description.model]
  const files = await Promise.all(parts.map(part => loadBytes(address(part.file), arrived)))
  const [wasm, model] = await Promise.all(files.map(unpacked))
  return {wasm, model}
}

async function startSession({wasm, model}) {
  runtime = await import('./onnxruntime/ort.wasm.min.mjs')
  runtime.env.wasm.numThreads = 1 // more need headers that simple servers do not send
  runtime.env.wasm.wasmBinary = wasm
  return runtime.InferenceSession.create(model, {executionProviders: ['wasm']})
}

// The first run takes much longer than the next ones.
function warmUp() {
  const size = netSize()
  return run({pixels: new Uint8Array(size.width * size.height * 3), size})
}

// The model's card: name, labels, background, size, provider, limits. `report(share, sentence)` hears of the progress.
export async function open(report) {
  checkBrowser()
  const description = await loadJson(address('model.json'))
  const parts = await loadParts(description, report)
  card = {...description, provider: 'in this browser', limits: LIMITS}
  report(0.99, 'starting the model')
  try {
    session = await startSession(parts)
    await warmUp()
  } catch (error) {
    throw new Error(`the model could not be started (${error.message})`)
  }
  report(1, '')
  return card
}

function netSize() {
  const [height, width] = card.size
  return {width, height}
}

function toNetSize(image, fit) {
  const rgb = withoutAlpha(pixelsOf(image))
  const from = {width: image.width, height: image.height}
  if (fit === 'pad') return letterbox(rgb, from, netSize(), card.fill)
  return stretch(rgb, from, netSize())
}

// The graph's outputs: mask, confidence and, in newer files, logits.
function run({pixels, size}) {
  const picture = new runtime.Tensor('uint8', pixels, [1, size.height, size.width, 3])
  return session.run({picture})
}

// Function from a label to its scores; null where the file has none.
function scoresOf(logits, {size, inside}) {
  if (!logits) return null
  const area = size.width * size.height
  return label => {
    const begin = label * area
    return crop(logits.data.subarray(begin, begin + area), size.width, inside)
  }
}

// {mask, confidence} at the photo's size, one byte a pixel.
function enlarge(outputs, netImage, to) {
  const {size, inside} = netImage
  const mask = crop(outputs.mask.data, size.width, inside)
  const confidence = crop(outputs.confidence.data, size.width, inside)
  return {
    mask: enlargeMask(mask, scoresOf(outputs.logits, netImage), inside, to),
    confidence: resize(confidence, 1, inside, to),
  }
}

// So that the browser can draw between two steps of work.
function pause() {
  return new Promise(resolve => setTimeout(resolve))
}

function timesText(begin, resized, ran, end) {
  const parts = [`resized ${(resized - begin).toFixed(0)}`, `ran ${(ran - resized).toFixed(0)}`]
  return `${(end - begin).toFixed(0)} ms in all: ${parts.join(', ')}, enlarged ${(end - ran).toFixed(0)}`
}

export async function predict({image}, fit) {
  await pause()
  const begin = performance.now()
  const netImage = toNetSize(image, fit)
  const resized = performance.now()
  const outputs = await run(netImage)
  const ran = performance.now()
  const size = {width: image.width, height: image.height}
  const {mask, confidence} = enlarge(outputs, netImage, size)
  const labels = describe(mask, confidence, card.labels)
  return {mask, confidence, ...size, labels, times: timesText(begin, resized, ran, performance.now())}
}

// A stream of frames, which are canvases: {isReady, send, close}. One is worked on at a time, the others are skipped.
export function openStream(fit, {answered, ended}) {
  let isOpen = true
  let isBusy = false
  let frame = 0
  return {
    isReady: () => isOpen && !isBusy,
    close() {
      isOpen = false
    },
    async send(image) {
      isBusy = true
      try {
        const answer = await predict({image}, fit)
        if (isOpen) answered({...answer, frame: frame++}, image)
      } catch (error) {
        ended(error)
      }
      isBusy = false
    },
  }
}
