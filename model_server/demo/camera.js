// Frames of the camera, to a stream of the engine.

const FRAMES = 10 // a second, at most

const REFUSALS = {
  NotAllowedError: 'the camera was refused; allow it for this page in the browser and try again',
  NotFoundError: 'there is no camera here',
  NotReadableError: 'another program uses the camera; close it and try again',
}

async function openCamera() {
  if (!navigator.mediaDevices) {
    throw new Error('the browser gives the camera to pages from https or localhost only')
  }
  try {
    return await navigator.mediaDevices.getUserMedia({video: {width: 640, height: 480}})
  } catch (error) {
    throw new Error(REFUSALS[error.name] || `the camera could not be opened (${error.message})`)
  }
}

function frameOf(video) {
  const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight)
  canvas.getContext('2d').drawImage(video, 0, 0)
  return canvas
}

// Start the camera and return the function that stops it.
// `openStream(handlers)` gives {isReady, send, close}; `handlers` are {answered, refused, ended}.
export async function startCamera(video, openStream, handlers) {
  const media = await openCamera()
  const closeMedia = () => media.getTracks().forEach(track => track.stop())
  try {
    video.srcObject = media
    await video.play()
    const stream = openStream(handlers)
    const timer = setInterval(() => stream.isReady() && stream.send(frameOf(video)), 1000 / FRAMES)
    return () => {
      clearInterval(timer)
      stream.close()
      closeMedia()
    }
  } catch (error) {
    closeMedia()
    throw error
  }
}
