// The flights themselves: search, results, offer, booking. What concerns nudges is in nudges.js.

import { act } from '/files/shared/arrivals.js'
import { ask, h, money } from '/files/shared/dom.js'
import { hesitates, identify, searched } from './nudges.js'

const goods = await (await fetch('/files/travel/goods.json')).json()
const main = document.querySelector('main')
let me = await ask('/travel/api/me')
identify(me.user_id)

const TAKEN = `passerine-offer-${me.user_id}` // the decision whose nudge was taken, if one was

function search() {
  const to = h('select', { id: 'to', name: 'to' }, h('option', {}, 'Lisbon'), h('option', {}, 'Athens'))
  main.append(h('div', { class: 'hero' },
    h('h1', {}, 'Where the swallows go'),
    h('form', { class: 'search', action: '/travel/flights' },
      h('div', {}, h('label', { for: 'from' }, 'From'), h('input', { id: 'from', value: 'Berlin', readonly: true })),
      h('div', {}, h('label', { for: 'to' }, 'To'), to),
      h('div', {}, h('label', { for: 'when' }, 'Leaves'), h('input', { id: 'when', value: 'in three weeks', readonly: true })),
      h('button', { class: 'primary' }, 'Search'))),
    h('div', { id: 'search-notes' }),
    h('ul', { class: 'notes' },
      h('li', {}, h('b', {}, 'One bag is always included'), ' and it weighs up to 12 kg.'),
      h('li', {}, h('b', {}, 'Seats together'), ' for families, without a fee.'),
      h('li', {}, h('b', {}, 'Prices with everything'), ' from the first search on.')))
}

const times = (one) => [
  h('div', { class: 'time' }, h('b', {}, one.leaves), h('span', {}, 'BER')),
  h('div', { class: 'way' }, h('span', {}, one.duration), h('i', { 'aria-hidden': 'true' }), h('span', {}, one.stops)),
  h('div', { class: 'time' }, h('b', {}, one.lands), h('span', {}, one.route.slice(4))),
]

function flights(to) {
  const found = goods.filter((one) => one.to === to)
  main.append(h('div', { class: 'page' },
    h('h1', {}, `Berlin to ${to}`), h('p', { class: 'lead' }, `${found.length} flights, one adult`),
    h('div', { id: 'search-notes' }),
    h('ul', { class: 'flights' }, found.map((one) => h('li', {}, times(one),
      h('div', { class: 'pick' }, h('b', {}, money(one.price)), h('button', { type: 'button', class: 'primary', 'aria-label': `Choose ${one.leaves}`, click: async () => {
        await act(me, '/travel/api/choose', { product: one.id })
        sessionStorage.removeItem(TAKEN)
        location.href = '/travel/offer'
      } }, 'Choose')))))))
  searched(found[0])
}

function offer(one) {
  main.append(h('div', { class: 'page two' },
    h('div', {},
      h('h1', {}, `Your flight to ${one.to}`),
      h('div', { class: 'ticket' }, times(one)),
      h('h2', {}, 'Who travels'),
      h('div', { class: 'fields' },
        h('div', {}, h('label', { for: 'first' }, 'First name'), h('input', { id: 'first', autocomplete: 'off' })),
        h('div', {}, h('label', { for: 'last' }, 'Last name'), h('input', { id: 'last', autocomplete: 'off' }))),
      h('h2', {}, 'Included'),
      h('ul', { class: 'included' },
        h('li', {}, h('b', {}, 'A bag of 12 kg'), 'in the cabin or below, as you like'),
        h('li', {}, h('b', {}, 'A seat of your choice'), 'also at the window'),
        h('li', {}, h('b', {}, 'Another day'), 'if you change your plans a week before'))),
    h('aside', { class: 'sum', 'aria-label': 'Price' },
      h('dl', { id: 'price' }, h('dt', {}, 'Flight'), h('dd', {}, money(one.price)), h('dt', {}, 'Bag, seat, taxes'), h('dd', {}, 'included'),
        h('dt', {}, 'Together'), h('dd', { class: 'big' }, money(one.price))),
      h('a', { class: 'primary', href: '/travel/checkout' }, 'Go on to book'))))
  hesitates((decision, link) => {
    sessionStorage.setItem(TAKEN, decision)
    location.href = link
  })
}

function checkout(one) {
  const taken = sessionStorage.getItem(TAKEN)
  main.append(h('div', { class: 'page' },
    h('h1', {}, 'Book your flight'),
    h('div', { class: 'ticket' }, times(one)),
    h('div', { id: 'payment-notes' }),
    h('p', { class: 'lead' }, `${money(one.price)} by the card that you saved, which ends in 4242.`, taken && ' Your offer is taken off when you book, if it has not ended.'),
    h('button', { type: 'button', class: 'primary', click: async () => {
      me = await act(me, '/travel/api/book', { decision: taken })
      main.replaceChildren(h('div', { class: 'page' }, h('h1', {}, 'You are going'),
        h('p', { class: 'lead' }, `Booked for ${money(me.paid)}. We wish you a good flight to ${one.to}.`)))
    } }, 'Book now')))
}

const chosen = goods.find(({ id }) => id === me.flight)
const [, , place] = location.pathname.split('/')
if (place === 'flights') flights(new URLSearchParams(location.search).get('to') === 'Athens' ? 'Athens' : 'Lisbon')
else if (place === 'offer' && chosen) offer(chosen)
else if (place === 'checkout' && chosen) checkout(chosen)
else search()
