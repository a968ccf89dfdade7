// Order of what a page and its backend tell the service. A page of your own needs none of this: here time is driven, and
// what arrives late would have happened late, after what came of it.

import { ask } from './dom.js'

const waits = (user) => Object.entries(localStorage).some(([name, item]) => /^journey-bandit:.+:q/.test(name) && JSON.parse(item).user === user)

/** Once what pages told of this user has arrived at the service. */
export async function arrived(user) {
  while (waits(user)) await new Promise((done) => setTimeout(done, 20))
}

/** Reply of this app's backend to an action of the user, which it reports: after what the page told before. */
export async function act({ user_id: user }, path, body) {
  await arrived(user)
  return ask(path, body)
}
