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

// How values are mixed: the places and weights, where a sum begins, and the kind of array for the sums.
// Pillow's weights for bytes have `BITS` bits; the half, and what an array of bytes cuts off, round the sum.
function byteKernel(from, to) {
  const places = bilinearWeights(from, to).map(({first, weights}) => ({first, weights: weights.map(roundedWeight)}))
  return {places, start: 0.5, Values: Uint8Array}
}

function roundedWeight(weight) {
  return Math.round(weight * 2 ** BITS) / 2 ** BITS
}

function floatKernel(from, to) {
  return {places: bilinearWeights(from, to), start: 0, Values: Float32Array}
}

// Uint8Array of another size: `from` and `to` are sizes, `channels` is the number of bytes a pixel.
export function resize(bytes, channels, from, to) {
  return resizeTwice(bytes, channels, from, to, byteKernel)
}

// Float32Array of another size, one value a pixel, such as the scores of one label.
export function resizeFloats(values, from, to) {
  return resizeTwice(values, 1, from, to, floatKernel)
}

// First along the rows, then along the columns.
function resizeTwice(values, channels, from, to, kernel) {
  let resized = values
  if (from.width !== to.width) {
    resized = resizeRows(resized, channels, from, kernel(from.width, to.width))
  }
  if (from.height !== to.height) {
    resized = resizeColumns(resized, channels * to.width, kernel(from.height, to.height))
  }
  return resized
}

function resizeRows(values, channels, from, {places, start, Values}) {
  const resized = new Values(places.length * from.height * channels)
  let at = 0
  for (let row = 0; row < from.height; row++) {
    const rowBegin = row * from.width * channels
    for (const {first, weights} of places) {
      for (let channel = 0; channel < channels; channel++) {
        resized[at++] = mixed(values, rowBegin + first * channels + channel, channels, weights, start)
      }
    }
  }
  return resized
}

// The weighted sum of values that are `step` apart.
function mixed(values, begin, step, weights, start) {
  let sum = start
  let source = begin
  for (let i = 0; i < weights.length; i++) {
    sum += values[source] * weights[i]
    source += step
  }
  return sum
}

// `length` is the number of values in a row.
function resizeColumns(values, length, {places, start, Values}) {
  const resized = new Values(places.length * length)
  const sums = new Float64Array(length)
  places.forEach(({first, weights}, row) => {
    sums.fill(start)
    weights.forEach((weight, i) => addRow(sums, values, (first + i) * length, weight))
    resized.set(sums, row * length)
  })
  return resized
}

function addRow(sums, values, begin, weight) {
  for (let column = 0; column < sums.length; column++) {
    sums[column] += values[begin + column] * weight
  }
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
