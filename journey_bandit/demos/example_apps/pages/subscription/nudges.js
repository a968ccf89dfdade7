// Nudges on the pages of Halfnote: this file is all that the lessons needed to add.

import { Journey } from 'https://nudges.example/v1/browser/journey.js'
import { after, besideThePanel } from '/files/shared/panel-link.js' // only here; `after` is setTimeout by the panel's clock

const text = async (path) => (await fetch(path)).text()

const journey = new Journey({ key: 'pub_your_key', ...besideThePanel })

export function identify(user) {
  journey.identify(user, { token: () => text('/subscription/api/token') })
}

/** The payment page, or the one where the card is entered, has been open for half a minute. `take`: the offer is taken.
 * On the second nothing is shown whatever is asked: the catalogue excludes it. */
export function hesitates(take) {
  const nudge = async () => {
    const decision = await journey.decide()
    journey.show(decision, { navigate: (link) => take(decision.decision_id, link) })
  }
  nudge()
  after(30, nudge)
}

/** The payment page was left by "Back". */
export function wentBack() {
  journey.track('Payment Page Left')
}

// "Checkout Started" and "Subscription Started" are what nudges are rewarded for, so the backend reports them.
