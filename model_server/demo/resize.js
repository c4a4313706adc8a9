// Resizing as Pillow does it: bilinear, and averaging where an image becomes smaller.
// A canvas resizes otherwise, and the network was trained on Pillow's images.
// Images are flat arrays of rows; a size is {width, height}.

const BITS = 22 // of a weight after the point, for images of bytes

// For each place of `to` places: the first of the `from` places that it is mixed of, and their weights.
export function bilinearWeights(from, to) {
  const scale = from / to
  const support = Math.max(scale, 1)
  return Array.from({length: to}, (_, place) => {
    const center = (place + 0.5) * scale
    const first = Math.max(0, Math.trunc(center - support + 0.5))
    const end = Math.min(from, Math.trunc(center + support + 0.5))
    return {first, weights: triangle(first, end, center, support)}
  })
}

// The weights of the places from `first` to before `end`; their sum is 1.
function triangle(first, end, center, support) {
  const heights = []
  for (let place = first; place < end; place++) {
    const distance = Math.abs(place + 0.5 - center) / support
    heights.push(Math.max(0, 1 - distance))
  }
  const sum = heights.reduce((total, height) => total + height, 0)
  return heights.map(height => height / sum)
}

// The same weights as whole numbers, for images of bytes.
function wholeWeights(from, to) {
  return bilinearWeights(from, to).map(({first, weights}) => ({
    first,
    weights: weights.map(weight => Math.round(weight * 2 ** BITS)),
  }))
}

// Uint8Array of another size: `from` and `to` are sizes, `channels` is the number of bytes a pixel.
export function resize(bytes, channels, from, to) {
  const wide = {width: to.width, height: from.height}
  const rows = from.width === to.width ? bytes : resizeRows(bytes, channels, from, wide, byteKernel(from.width, to.width))
  return from.height === to.height ? rows : resizeColumns(rows, channels, wide, to, byteKernel(from.height, to.height))
}

// Float32Array of another size, one value a pixel, such as the scores of one label.
export function resizeFloats(values, from, to) {
  const wide = {width: to.width, height: from.height}
  const rows = from.width === to.width ? values : resizeRows(values, 1, from, wide, floatKernel(from.width, to.width))
  return from.height === to.height ? rows : resizeColumns(rows, 1, wide, to, floatKernel(from.height, to.height))
}

// How values are mixed: the places and weights, where a sum begins, how it becomes a value, and the kind of array.
function byteKernel(from, to) {
  const half = 2 ** (BITS - 1)
  return {places: wholeWeights(from, to), start: half, finish: sum => sum >> BITS, Values: Uint8Array}
}

function floatKernel(from, to) {
  return {places: bilinearWeights(from, to), start: 0, finish: sum => sum, Values: Float32Array}
}

function resizeRows(values, channels, from, to, {places, start, finish, Values}) {
  const resized = new Values(to.width * to.height * channels)
  let at = 0
  for (let row = 0; row < to.height; row++) {
    const rowBegin = row * from.width * channels
    for (const {first, weights} of places) {
      for (let channel = 0; channel < channels; channel++) {
        let sum = start
        let source = rowBegin + first * channels + channel
        for (let i = 0; i < weights.length; i++) {
          sum += values[source] * weights[i]
          source += channels
        }
        resized[at++] = finish(sum)
      }
    }
  }
  return resized
}

function resizeColumns(values, channels, from, to, {places, start, finish, Values}) {
  const stride = from.width * channels
  const resized = new Values(stride * to.height)
  let at = 0
  for (const {first, weights} of places) {
    for (let column = 0; column < stride; column++) {
      let sum = start
      let source = first * stride + column
      for (let i = 0; i < weights.length; i++) {
        sum += values[source] * weights[i]
        source += stride
      }
      resized[at++] = finish(sum)
    }
  }
  return resized
}

// Uint8Array of another size, one byte a pixel, nothing mixed: for numbers of labels.
export function resizeNearest(bytes, from, to) {
  const columns = nearestPlaces(from.width, to.width)
  const rows = nearestPlaces(from.height, to.height)
  const resized = new Uint8Array(to.width * to.height)
  let at = 0
  for (const row of rows) {
    for (const column of columns) {
      resized[at++] = bytes[row * from.width + column]
    }
  }
  return resized
}

// Added up step by step, as Pillow does it: where a place lies between two, rounding decides.
function nearestPlaces(from, to) {
  const step = from / to
  const places = []
  let center = step / 2
  for (let place = 0; place < to; place++) {
    places.push(Math.floor(center))
    center += step
  }
  return places
}
