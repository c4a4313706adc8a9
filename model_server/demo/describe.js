// What a mask holds.

// List of {value, name, share, confidence} of the labels in a mask, the largest first. Both arrays are bytes of the same
// size; share and mean confidence are 0 to 1. `labels` are the model's, in the order of their values.
export function describe(mask, confidence, labels) {
  const pixels = new Float64Array(256)
  const sums = new Float64Array(256)
  for (let i = 0; i < mask.length; i++) {
    pixels[mask[i]]++
    sums[mask[i]] += confidence[i]
  }
  const found = labels.filter(({value}) => pixels[value] > 0)
  const rows = found.map(({value, name}) => ({
    value,
    name,
    share: pixels[value] / mask.length,
    confidence: sums[value] / pixels[value] / 255,
  }))
  return rows.sort((a, b) => b.share - a.share)
}
