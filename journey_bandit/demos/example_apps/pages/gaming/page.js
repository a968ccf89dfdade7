// The game itself: a keep to play in, and a shop. What concerns nudges is in nudges.js.

import { act } from '/files/shared/arrivals.js'
import { ask, h, money } from '/files/shared/dom.js'
import { identify, played, shopOpened } from './nudges.js'

const goods = await (await fetch('/files/gaming/goods.json')).json()
const main = document.querySelector('main')
let me = await ask('/gaming/api/me')
identify(me.user_id)

const TAKEN = `emberfall-offer-${me.user_id}` // the decision whose nudge was taken, if one was
const count = () => (document.getElementById('points').textContent = new Intl.NumberFormat('en').format(me.points ?? 0))
const take = (decision, link) => {
  sessionStorage.setItem(TAKEN, decision)
  if (link) location.href = link
}

function keep() {
  const told = h('p', { class: 'told', role: 'status' }, 'The gate is open.')
  let level = 17
  main.append(
    h('div', { class: 'scene', id: 'board' },
      h('h1', {}, 'The keep at nightfall'),
      told,
      h('button', { type: 'button', class: 'primary', click: () => {
        told.textContent = `You held the keep. Level ${++level}.`
        played(level, 1, take)
      } }, 'Play a round')),
    h('div', { class: 'below' }, h('div', { id: 'shop-notes' }), h('p', {}, h('a', { href: '/gaming/shop' }, 'Spend your embers in the shop'))))
}

function shop() {
  const told = h('p', { class: 'told', role: 'status' })
  main.append(h('div', { class: 'below' },
    h('h1', {}, 'The ember shop'),
    told,
    h('div', { id: 'shop-notes' }),
    h('ul', { class: 'packs' }, goods.map((one) => h('li', {},
      h('img', { src: `/files/gaming/${one.id}.svg`, alt: '', width: 200, height: 160 }),
      h('h2', {}, one.name), h('p', {}, one.about), h('p', { class: 'points' }, `${one.points} embers`),
      h('button', { type: 'button', class: 'primary', click: async () => {
        me = await act(me, '/gaming/api/buy', { product: one.id, decision: sessionStorage.getItem(TAKEN) })
        sessionStorage.removeItem(TAKEN)
        told.textContent = `Yours: ${me.earned} embers${me.earned > one.points ? ', the bonus included' : ''}.`
        count()
      } }, money(one.price)))))))
  shopOpened()
}

count()
location.pathname.startsWith('/gaming/shop') ? shop() : keep()
