// The lessons themselves: plans, payment, card, welcome. What concerns nudges is in nudges.js.

import { act } from '/files/shared/arrivals.js'
import { ask, h, money } from '/files/shared/dom.js'
import { hesitates, identify, wentBack } from './nudges.js'

const goods = await (await fetch('/files/subscription/goods.json')).json()
const main = document.querySelector('main')
let me = await ask('/subscription/api/me')
identify(me.user_id)

const plan = goods.find(({ id }) => id === me.plan)
const take = async (decision, link) => {
  if (link.endsWith('/trial')) await act(me, '/subscription/api/extend', { decision })
  location.href = link
}

function plans() {
  main.append(h('div', { class: 'split' },
    h('div', {}, h('h1', {}, 'Keep playing'), h('p', { class: 'lead' }, 'Your hands know four songs by now. Choose a plan, and the fifth one is waiting.')),
    h('img', { src: '/files/subscription/keys.svg', alt: 'A keyboard with two keys lit', width: 640, height: 360 })),
    h('ul', { id: 'plans', class: 'plans' }, goods.map((one) => h('li', {},
      h('h2', {}, one.name), h('p', { class: 'price' }, h('b', {}, money(one.price)), ` ${one.per}`), h('p', {}, one.about),
      h('button', { type: 'button', class: 'primary', click: async () => {
        await act(me, '/subscription/api/choose', { product: one.id })
        await act(me, '/subscription/api/checkout', {})
        location.href = '/subscription/checkout'
      } }, `Choose ${one.name.toLowerCase()}`)))))
}

const receipt = () => h('aside', { class: 'receipt', 'aria-label': 'Your plan' },
  h('h2', {}, `${plan.name} plan`),
  h('dl', {}, h('dt', {}, 'Price'), h('dd', {}, `${money(plan.price)} ${plan.per}`),
    h('dt', {}, 'Free until'), h('dd', {}, me.trial_days ? `${me.trial_days} days from now` : 'today'),
    h('dt', {}, 'To pay today'), h('dd', { class: 'big' }, money(me.trial_days ? 0 : plan.annual ? 12 * plan.price : plan.price))))

function checkout() {
  main.append(h('div', { class: 'pay' },
    h('div', {}, h('h1', {}, 'Payment'),
      h('fieldset', {}, h('legend', {}, 'How would you like to pay?'),
        ['Card', 'Bank transfer', 'Phone bill'].map((way, i) => h('label', {}, h('input', { type: 'radio', name: 'way', checked: i === 0 }), h('span', {}, way)))),
      h('div', { id: 'payment-notes' }),
      h('p', { class: 'row' }, h('a', { class: 'primary', href: '/subscription/checkout/card' }, 'Continue'),
        h('a', { class: 'plain', href: '/subscription/', click: wentBack }, 'Back to the plans'))),
    receipt()))
  hesitates(take)
}

function trial() {
  main.append(h('div', { class: 'pay' },
    h('div', {}, h('h1', {}, me.trial_days ? `${me.trial_days} more days, free` : 'No longer trial was offered'),
      h('p', { class: 'lead' }, me.trial_days ? 'You pay at the end of them, unless you cancel before. We remind you two days earlier.' : 'You can go on to pay as usual.'),
      h('p', { class: 'row' }, h('a', { class: 'primary', href: '/subscription/checkout/card' }, 'Go on to the card'))),
    receipt()))
}

function card() {
  const field = (id, label, more) => h('div', {}, h('label', { for: id }, label), h('input', { id, autocomplete: 'off', ...more }))
  main.append(h('div', { class: 'pay' },
    h('form', { submit: async (event) => {
      event.preventDefault()
      me = await act(me, '/subscription/api/pay', {})
      location.href = '/subscription/welcome'
    } },
      h('h1', {}, 'Your card'),
      h('div', { class: 'fields' }, field('number', 'Card number', { inputmode: 'numeric', placeholder: '4242 4242 4242 4242' }),
        field('until', 'Valid until', { placeholder: '12 / 29' }), field('code', 'Security code', { inputmode: 'numeric', placeholder: '123' })),
      h('button', { class: 'primary' }, me.trial_days ? 'Begin the longer trial' : 'Pay and begin')),
    receipt()))
  hesitates(take)
}

function welcome() {
  const ends = me.pays_at && new Intl.DateTimeFormat('en-GB', { dateStyle: 'long', timeZone: 'UTC' }).format(new Date(me.pays_at))
  main.append(h('div', { class: 'split' },
    h('div', {}, h('h1', {}, 'Welcome back to the piano'), h('p', { class: 'lead' }, me.trial_days ? `Your first payment is on ${ends}.` : 'Your plan begins today.'),
      h('p', {}, h('a', { href: '/subscription/' }, 'Look at the plans again'))),
    h('img', { src: '/files/subscription/keys.svg', alt: '', width: 640, height: 360 })))
}

const place = location.pathname.split('/').slice(2).join('/')
if (place === 'checkout' && plan) checkout()
else if (place === 'checkout/trial' && plan) trial()
else if (place === 'checkout/card' && plan) card()
else if (place === 'welcome') welcome()
else plans()
