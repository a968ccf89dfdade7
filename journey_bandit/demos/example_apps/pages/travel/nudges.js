// Nudges on the pages of Passerine: this file is all that the flights needed to add.

import { Journey } from 'https://nudges.example/v1/browser/journey.js'
import { after, besideThePanel } from '/files/shared/panel-link.js' // only here; `after` is setTimeout by the panel's clock

const text = async (path) => (await fetch(path)).text()

const journey = new Journey({ key: 'pub_your_key', ...besideThePanel })

export function identify(user) {
  journey.identify(user, { token: () => text('/travel/api/token') })
}

export function searched({ route, days_to_departure }) {
  journey.track('Flight Searched', { route, days_to_departure })
}

/** A flight was chosen, and nothing happened for ten minutes. When an offer ends, the backend signs. */
export function hesitates(take) {
  after(600, async () => {
    const decision = await journey.decide({ evidence: () => text('/travel/api/evidence') })
    journey.show(decision, { navigate: (link) => take(decision.decision_id, link) })
  })
}

// "Flight Chosen" and "Order Completed" are what nudges are rewarded for, so the backend reports them, not a page.
