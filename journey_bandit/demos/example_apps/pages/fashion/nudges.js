// Nudges on the pages of Nordhem: this file is all that the shop needed to add.

import { Journey } from 'https://nudges.example/v1/browser/journey.js'
import { besideThePanel } from '/files/shared/panel-link.js' // only here: the panel hears what happens

const text = async (path) => (await fetch(path)).text()

const journey = new Journey({ key: 'pub_your_key', ...besideThePanel })

/** Whoever is logged in, as the backend signs it. */
export function identify(user) {
  journey.identify(user, { token: () => text('/fashion/api/token') })
}

/** A product page was opened. What is left of a size is for the backend to say: it signs the count. */
export function viewed({ id, price, category }, size, putInTheBag) {
  journey.track('Product Viewed', { product_id: id, price, category })
  return journey.nudge({
    evidence: () => text(`/fashion/api/evidence?about=${id}/${size}`),
    navigate: async (link) => {
      if (link.endsWith('/cart')) await putInTheBag() // the button says so
      location.href = link
    },
  })
}

/** Another size was chosen, or one was put into the bag: what was said of what is left does not hold any more. */
export function countChanged() {
  journey.close()
}

// "Product Added" is what the nudges are rewarded for, so the shop's backend reports it, not a page.
