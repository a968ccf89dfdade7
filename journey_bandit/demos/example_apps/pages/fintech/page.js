// Opening an account: six steps on one page. What concerns nudges is in nudges.js.

import { act } from '/files/shared/arrivals.js'
import { ask, h } from '/files/shared/dom.js'
import { identify, opened, stepDone } from './nudges.js'

const main = document.querySelector('main')
let me = await ask('/fintech/api/me')
identify(me.user_id)

const STEPS = [
  ['name', 'Your name', 'As it stands in your document.', 'Full name'],
  ['contact', 'How we reach you', 'We send a code to this number.', 'Mobile number'],
  ['document', 'Your document', 'ID card or passport, photographed flat and in good light.', null, 'Take the photo'],
  ['selfie', 'Your face', 'A short selfie shows that the document is yours.', null, 'Take the selfie'],
  ['address', 'Your address', 'Where you are registered. Your card is sent there.', 'Street and number'],
  ['confirm', 'Confirm', 'Read the terms, and open the account.', null, 'Open the account'],
]

async function finish(step) {
  me = await act(me, '/fintech/api/step', { step })
  stepDone(step)
  if (me.steps.length === STEPS.length) location.href = '/fintech/done'
  else steps(true)
}

function steps(focus) {
  const done = me.steps?.length ?? 0
  const item = ([id, title, text, field, button], i) => {
    const now = i === done
    return h('li', { id: `step-${id}`, class: i < done ? 'ready' : now ? 'now' : 'later', 'aria-current': now ? 'step' : null },
      h('h2', {}, title), h('p', {}, i < done ? 'Done' : text),
      now && h('form', { submit: (event) => (event.preventDefault(), finish(id)) },
        field && h('label', {}, h('span', {}, field), h('input', { autocomplete: 'off' })),
        h('button', { class: 'primary' }, button ?? 'Continue')))
  }
  main.replaceChildren(
    h('h1', {}, done ? 'Almost yours' : 'Open your account'),
    h('p', { class: 'lead' }, `${done} of ${STEPS.length} steps done. About ${STEPS.length - done} minutes are left.`),
    h('progress', { max: STEPS.length, value: done, 'aria-label': 'Steps done' }),
    h('ol', { class: 'steps' }, STEPS.map(item)))
  if (focus) main.querySelector('.now button, .now input')?.focus({ preventScroll: true })
}

function screen(title, text, link, label) {
  main.append(h('div', { class: 'screen' }, h('h1', {}, title), h('p', { class: 'lead' }, text), link && h('p', {}, h('a', { class: 'primary', href: link }, label))))
}

const place = location.pathname.split('/')[2]
if (place === 'away') screen('You closed the app', 'What you have done is saved. Some people come back, some do not.', '/fintech/', 'Open the app again')
else if (place === 'done' || me.steps?.length === STEPS.length) screen('Welcome to Lumen', 'You are verified, and your account is open. The card is on its way.')
else if (place) screen('Help', 'Somebody from Lumen would be here to help.', '/fintech/', 'Back to the steps')
else {
  steps()
  opened()
}
