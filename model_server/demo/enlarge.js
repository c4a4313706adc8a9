// From what the network gives, at its size, to a mask at the photo's size. As nbs_lib/predict.py does it.
import {resizeFloats, resizeNearest} from './resize.js'

const SMOOTH_PIXELS = 2 ** 20 // of a mask that is enlarged by scores

export function sameSize(a, b) {
  return a.width === b.width && a.height === b.height
}

// The size to which a mask is enlarged by scores: the photo's, or smaller in its shape for a huge photo.
export function smoothSize({width, height}) {
  const scale = Math.sqrt(SMOOTH_PIXELS / (width * height))
  if (scale >= 1) return {width, height}
  return {width: Math.max(1, Math.floor(width * scale)), height: Math.max(1, Math.floor(height * scale))}
}

// Uint8Array: which label of `mask` has the highest score at each pixel, all scores enlarged bilinearly.
// `scores(label)` gives the Float32Array of one label.
export function enlargeScores(scores, mask, from, to) {
  const highest = new Float32Array(to.width * to.height).fill(-Infinity)
  const enlarged = new Uint8Array(highest.length)
  const labels = [...new Set(mask)].sort((a, b) => a - b)
  for (const label of labels) {
    keepHighest(resizeFloats(scores(label), from, to), label, highest, enlarged)
  }
  return enlarged
}

function keepHighest(values, label, highest, enlarged) {
  for (let i = 0; i < values.length; i++) {
    if (values[i] > highest[i]) {
      highest[i] = values[i]
      enlarged[i] = label
    }
  }
}

// Uint8Array at the photo's size: by scores where the model gives them (`scores` is null otherwise), else by nearest
// neighbor.
export function enlargeMask(mask, scores, from, to) {
  if (sameSize(from, to)) return mask
  if (!scores) return resizeNearest(mask, from, to)
  const smooth = smoothSize(to)
  const enlarged = enlargeScores(scores, mask, from, smooth)
  return sameSize(smooth, to) ? enlarged : resizeNearest(enlarged, smooth, to)
}

// The upper left part, of size `inside`, of an array of rows of `width` values.
export function crop(values, width, inside) {
  if (width === inside.width) return values.slice(0, inside.width * inside.height)
  const part = new values.constructor(inside.width * inside.height)
  for (let row = 0; row < inside.height; row++) {
    const begin = row * width
    part.set(values.subarray(begin, begin + inside.width), row * inside.width)
  }
  return part
}
