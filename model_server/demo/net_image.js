// A photo as the network takes it: uint8 RGB, at a size whose sides are multiples of 32.
import {resize} from './resize.js'

const MULTIPLE = 32

// Red, green and blue of a canvas's pixels, which have alpha, too.
export function withoutAlpha(rgba) {
  const rgb = new Uint8Array(rgba.length / 4 * 3)
  let at = 0
  for (let i = 0; i < rgba.length; i += 4) {
    rgb[at++] = rgba[i]
    rgb[at++] = rgba[i + 1]
    rgb[at++] = rgba[i + 2]
  }
  return rgb
}

// {pixels, size, inside}: the whole photo at the network's size, whatever that does to its shape.
export function stretch(rgb, from, netSize) {
  return {pixels: resize(rgb, 3, from, netSize), size: netSize, inside: netSize}
}

// {pixels, size, inside}: the photo in its own shape, as large as fits into the network's size. `inside` is the size of
// the part that shows it, `fill` the color of the rest.
export function letterbox(rgb, from, netSize, fill) {
  const inside = largestInside(from, netSize)
  const size = {width: roundedUp(inside.width), height: roundedUp(inside.height)}
  const photo = resize(rgb, 3, from, inside)
  const pixels = new Uint8Array(size.width * size.height * 3)
  for (let i = 0; i < pixels.length; i++) pixels[i] = fill[i % 3]
  for (let row = 0; row < inside.height; row++) {
    const begin = row * inside.width * 3
    pixels.set(photo.subarray(begin, begin + inside.width * 3), row * size.width * 3)
  }
  return {pixels, size, inside}
}

function largestInside(from, netSize) {
  const scale = Math.min(netSize.height / from.height, netSize.width / from.width)
  return {
    width: Math.max(1, roundHalfEven(from.width * scale)),
    height: Math.max(1, roundHalfEven(from.height * scale)),
  }
}

function roundedUp(side) {
  return Math.ceil(side / MULTIPLE) * MULTIPLE
}

// As Python rounds.
function roundHalfEven(value) {
  const below = Math.floor(value)
  if (value - below !== 0.5) return Math.round(value)
  return below % 2 === 0 ? below : below + 1
}
