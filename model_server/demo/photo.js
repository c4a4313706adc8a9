// From a file to an image that a model may be given.

// {blob, image}: the file and its ImageBitmap. Fails with a sentence where the file is no image.
export async function readPhoto(blob) {
  try {
    return {blob, image: await createImageBitmap(blob)}
  } catch {
    throw new Error('this browser cannot read that file as an image; take a JPEG, PNG or WebP file')
  }
}

// The photo, or a smaller one without a file where it exceeds the limits: pixels of its longer side, and of all.
export async function scaledDown(photo, {side, pixels}) {
  const {width, height} = photo.image
  const scale = Math.min(1, side / Math.max(width, height), Math.sqrt(pixels / (width * height)))
  if (scale === 1) return photo
  const canvas = new OffscreenCanvas(Math.max(1, Math.floor(width * scale)), Math.max(1, Math.floor(height * scale)))
  canvas.getContext('2d').drawImage(photo.image, 0, 0, canvas.width, canvas.height)
  return {blob: null, image: await createImageBitmap(canvas)}
}

// The bytes of an image, red, green, blue and alpha of each pixel.
export function pixelsOf(image) {
  const canvas = new OffscreenCanvas(image.width, image.height)
  const context = canvas.getContext('2d', {willReadFrequently: true})
  context.drawImage(image, 0, 0)
  return context.getImageData(0, 0, image.width, image.height).data
}

// A JPEG file of an image.
export function toJpeg(image, quality) {
  const canvas = new OffscreenCanvas(image.width, image.height)
  canvas.getContext('2d').drawImage(image, 0, 0)
  return canvas.convertToBlob({type: 'image/jpeg', quality})
}
