// Where the queue is, and how its Functions are called. Needs node-redis (version 4).
const { createClient } = require('redis')

const prefix = process.env.BYPOST_PREFIX || 'bypost'
const shards = Number(process.env.BYPOST_SHARDS || 1)

async function connect() {
  const client = createClient(process.env.REDIS_SOCKET
    ? { socket: { path: process.env.REDIS_SOCKET } }
    : { url: process.env.REDIS_URL || 'redis://127.0.0.1:6379' })
  client.on('error', (error) => console.error(String(error)))
  await client.connect()
  return client
}

const base = (shard) => `${prefix}:{${shard}}:`

// An id's shard, by CRC16 (XMODEM): its repeat must meet it there.
function shardOf(text) {
  let crc = 0
  for (const byte of Buffer.from(text)) {
    crc ^= byte << 8
    for (let bit = 0; bit < 8; bit++) crc = ((crc << 1) ^ (crc & 0x8000 ? 0x1021 : 0)) & 0xffff
  }
  return crc % shards
}

// Calls a Function of a queue; while the queue is full it waits.
async function call(client, name, shard, queue, ...words) {
  for (let wait = 100; ; wait = Math.min(wait * 2, 5000)) {
    try {
      return await client.sendCommand(['FCALL', name, '1', `${base(shard)}q:${queue}`, base(shard), queue, ...words.map(String)])
    } catch (error) {
      if (!/^(QUEUE_FULL|OOM)/.test(error.message)) throw error
      await new Promise((resolve) => setTimeout(resolve, wait))
    }
  }
}

module.exports = { prefix, shards, connect, base, shardOf, call }
