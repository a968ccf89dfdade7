// Nudges on the pages of Lumen Bank: this file is all that opening an account needed to add.

import { Journey } from 'https://nudges.example/v1/browser/journey.js'
import { besideThePanel } from '/files/shared/panel-link.js' // only here: the panel hears what happens

const text = async (path) => (await fetch(path)).text()

const journey = new Journey({ key: 'pub_your_key', ...besideThePanel })

export function identify(user) {
  journey.identify(user, { token: () => text('/fintech/api/token') })
}

/** The app was opened, perhaps again: whoever left in the middle may be helped on. `navigate`: where its buttons lead. */
export function opened(navigate) {
  journey.track('App Opened')
  return journey.nudge({ context: { device: innerWidth < 700 ? 'mobile' : 'desktop' }, navigate })
}

export function stepDone(step) {
  journey.track('Onboarding Step Completed', { step })
}

// "Identity Verified" is what nudges are rewarded for, so the bank's backend reports it, not a page.
