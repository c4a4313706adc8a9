// The engine that is a model server: photos go to it, masks come back.
import {pixelsOf, toJpeg} from './photo.js'

export const PROMISE = 'It goes to this server only.'
const MODEL = new URLSearchParams(location.search).get('model') // of several; none: the server's default
const TYPES = ['image/png', 'image/jpeg', 'image/webp']
let token = ''
let card = null

export function useToken(value) {
  token = value
}

// A query with the model's name where the page's own address has one.
function query(fields) {
  const named = MODEL === null ? fields : {...fields, model: MODEL}
  return new URLSearchParams(named)
}

function headers() {
  return token ? {Authorization: `Bearer ${token}`} : {}
}

// The JSON of an answer; an error with the server's sentence and status where it refuses.
async function checked(response) {
  if (response.ok) return response.json()
  const said = await response.json().catch(() => ({}))
  const error = new Error(said.error || `the server answered ${response.status}`)
  error.status = response.status
  throw error
}

// The model's card: name, labels, background, size, provider, limits.
export async function open() {
  card = await checked(await fetch(`v1/model?${query({})}`, {headers: headers()}))
  return card
}

// A mask travels as a gray PNG whose levels are the labels' numbers.
async function readMask(base64) {
  const bytes = Uint8Array.from(atob(base64), letter => letter.charCodeAt(0))
  const file = new Blob([bytes], {type: 'image/png'})
  const bitmap = await createImageBitmap(file, {colorSpaceConversion: 'none', premultiplyAlpha: 'none'})
  const pixels = pixelsOf(bitmap)
  const mask = new Uint8Array(bitmap.width * bitmap.height)
  for (let i = 0; i < mask.length; i++) mask[i] = pixels[4 * i]
  return mask
}

function timesText({ms, skipped}, whole) {
  const stages = {waited: ms.queue, decoded: ms.decode, predicted: ms.predict, answered: ms.answer}
  const parts = Object.entries(stages).map(([stage, time]) => `${stage} ${time.toFixed(0)}`)
  const tail = skipped ? `; ${skipped} frames skipped` : ''
  return `${whole.toFixed(0)} ms in all: ${parts.join(', ')}${tail}`
}

// What the page shows, from a message of the server and the milliseconds it took to come.
async function readAnswer(message, whole) {
  const {width, height, labels, frame} = message
  return {mask: await readMask(message.mask64), width, height, labels, frame, times: timesText(message, whole)}
}

// A file of a kind and size that the server takes.
function fileFor({blob, image}) {
  const isTaken = blob && TYPES.includes(blob.type) && blob.size <= card.limits.body
  return isTaken ? blob : toJpeg(image, 0.92)
}

export async function predict(photo, fit) {
  const body = await fileFor(photo)
  const begin = performance.now()
  const response = await fetch(`v1/predict?${query({format: 'json', mask: 'true', fit})}`, {
    method: 'POST',
    body,
    headers: {...headers(), 'Content-Type': body.type},
  })
  const message = await checked(response)
  return readAnswer(message, performance.now() - begin)
}

// The frames that were sent and not answered yet, by number. The server answers the newest and skips the others.
class FramesSent {
  constructor() {
    this.number = 0
    this.frames = new Map()
  }

  add(image) {
    this.frames.set(this.number++, {image, begin: performance.now()})
  }

  take(number) {
    const frame = this.frames.get(number)
    for (const earlier of this.frames.keys()) {
      if (earlier <= number) this.frames.delete(earlier)
    }
    return frame
  }
}

function streamAddress(fit) {
  const address = new URL(`v1/stream?${query({fit, token})}`, location.href)
  address.protocol = address.protocol.replace('http', 'ws')
  return address
}

async function handleMessage(message, sent, {answered, refused}, isOpen) {
  const {image, begin} = sent.take(message.frame)
  if (message.error) return refused(message.error)
  const answer = await readAnswer(message, performance.now() - begin)
  if (isOpen()) answered(answer, image)
}

// A stream of frames, which are canvases: {isReady, send, close}.
export function openStream(fit, handlers) {
  const socket = new WebSocket(streamAddress(fit))
  const sent = new FramesSent()
  const isOpen = () => socket.readyState === WebSocket.OPEN
  socket.onmessage = ({data}) => handleMessage(JSON.parse(data), sent, handlers, isOpen)
  socket.onclose = () => handlers.ended('the stream has ended')
  return {
    isReady: () => isOpen() && socket.bufferedAmount === 0,
    close() {
      socket.onclose = null
      socket.close()
    },
    async send(image) {
      const file = await toJpeg(image, 0.85)
      if (!isOpen()) return
      sent.add(image)
      socket.send(file)
    },
  }
}
