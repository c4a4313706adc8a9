// Files from where the page comes from, with progress, unpacked.

async function open(address) {
  const name = new URL(address).pathname.split('/').pop()
  try {
    const response = await fetch(address)
    if (response.ok) return response
    throw new Error(`the server answered ${response.status}`)
  } catch (error) {
    throw new Error(`${name} could not be loaded (${error.message}); load the page again`)
  }
}

export async function loadJson(address) {
  const response = await open(address)
  return response.json()
}

// Uint8Array of a file. `arrived(n)` is called with the number of bytes that came just now.
export async function loadBytes(address, arrived) {
  const response = await open(address)
  const chunks = []
  for (const reader = response.body.getReader(); ;) {
    const {done, value} = await reader.read()
    if (done) break
    chunks.push(value)
    arrived(value.length)
  }
  return new Uint8Array(await new Blob(chunks).arrayBuffer())
}

function isGzip(bytes) {
  return bytes[0] === 0x1f && bytes[1] === 0x8b
}

// The bytes that gzip has made smaller; those that a server has unpacked already stay as they are.
export async function unpacked(bytes) {
  if (!isGzip(bytes)) return bytes
  if (typeof DecompressionStream === 'undefined') {
    throw new Error('this browser cannot unpack the model (it has no DecompressionStream); take a newer one')
  }
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'))
  return new Uint8Array(await new Response(stream).arrayBuffer())
}
