#!/usr/bin/env node
// A campaign: send_campaign.js NAME < recipients.jsonl, a JSON object {"to", "merge_data"} a line. Run it again after a break, and it goes on.
const { createHash } = require('crypto')
const readline = require('readline')
const { call, connect, prefix, shards } = require('./bypost_queue')

const CHUNK = 200

async function main() {
  const name = process.argv[2]
  const content = JSON.stringify({ from: 'Example News <news@example.org>', subject: '{{first_name}}, the March letter', text: 'Dear {{first_name}}!\n' })
  const id = createHash('sha256').update(content).digest('hex').slice(0, 32) // the same content is stored once
  const client = await connect()
  await client.set(`${prefix}:content:${id}`, content)
  for (let shard = 0; shard < shards; shard++) await call(client, 'bypost_campaign_create', shard, name, 'content', id, 'weight', 1)
  let number = 0
  let chunk = []
  const add = async () => {
    const job = JSON.stringify({ content: id, campaign: name, recipients: chunk })
    await call(client, 'bypost_campaign_add', number % shards, name, number, job, chunk.length, id)
    await client.persist(`${prefix}:content:${id}`) // while more is coming the content stays
    number++
    chunk = []
  }
  for await (const line of readline.createInterface({ input: process.stdin })) {
    if (line.trim()) chunk.push(JSON.parse(line))
    if (chunk.length === CHUNK) await add()
  }
  if (chunk.length) await add()
  for (let shard = 0; shard < shards; shard++) await call(client, 'bypost_campaign_set', shard, name, 'closed', 1)
  console.log(name, 'is complete')
  await client.quit()
}

main().catch((error) => { console.error(error.message); process.exit(1) })
