#!/usr/bin/env node
// Outcomes as they happen: follow_events.js [LAST_ID [COUNT]] prints the ID, type and recipient of each, behind LAST_ID ($: from now on).
const { base, connect, shards } = require('./bypost_queue')

async function main() {
  const streams = Array.from({ length: shards }, (_, shard) => ({ key: `${base(shard)}events`, id: process.argv[2] || '$' }))
  let left = Number(process.argv[3] || -1)
  const client = await connect()
  while (left !== 0) {
    for (const { name, messages } of (await client.xRead(streams, { COUNT: 1000, BLOCK: 5000 })) || []) {
      for (const { id, message } of messages) {
        if (left === 0) break
        const event = JSON.parse(message.event)
        console.log(id, event.type, event.recipient, (event.response || {}).code || '')
        streams.find((stream) => stream.key === name).id = id // remember it where a restart finds it
        left--
      }
    }
  }
  await client.quit()
}

main().catch((error) => { console.error(error.message); process.exit(1) })
