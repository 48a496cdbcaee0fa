#!/usr/bin/env node
// One message, once: send_one.js ID FROM TO SUBJECT TEXT. Run it again with the same ID, and nothing is sent twice.
const { call, connect, shardOf } = require('./bypost_queue')

async function main() {
  const [id, from, to, subject, text] = process.argv.slice(2)
  const client = await connect()
  const job = { id, from, to, subject, text }
  const [entry, word] = await call(client, 'bypost_submit', shardOf(id), 'normal', JSON.stringify(job), 1, id, '')
  console.log(entry, word) // the entry's ID; `submitted` or `repeated`
  await client.quit()
}

main().catch((error) => { console.error(error.message); process.exit(1) })
