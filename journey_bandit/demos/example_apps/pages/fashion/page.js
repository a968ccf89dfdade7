// The shop itself: product grid, product page, bag. What concerns nudges is in nudges.js.

import { act } from '/files/shared/arrivals.js'
import { ask, h, money } from '/files/shared/dom.js'
import { countChanged, identify, viewed } from './nudges.js'

const goods = await (await fetch('/files/fashion/goods.json')).json()
const main = document.querySelector('main')
let me = await ask('/fashion/api/me')
identify(me.user_id)

const picture = ({ id, name, colour }) => h('img', { src: `/files/fashion/${id}.svg`, alt: `${name} in ${colour.toLowerCase()}`, width: 600, height: 720 })
const count = () => (document.getElementById('bag').textContent = String(me.bag?.length ?? 0))

const size = () => document.querySelector('[name=size]:checked').value

async function add(one) {
  me = await act(me, '/fashion/api/add', { product: one.id, size: size() })
  countChanged()
  count()
}

function card(one) {
  return h('li', {}, h('a', { href: `/fashion/p/${one.id}` }, picture(one), h('span', { class: 'name' }, one.name), h('span', { class: 'price' }, money(one.price))))
}

function shop() {
  main.append(h('h1', {}, 'Autumn, in six pieces'),
    h('p', { class: 'lead' }, 'Wool, linen and leather, cut to be worn for years.'),
    h('ul', { class: 'grid' }, goods.map(card)))
}

function product(one) {
  const told = h('p', { class: 'told', role: 'status' })
  const put = async () => {
    await add(one)
    told.replaceChildren('In your bag. ', h('a', { href: '/fashion/cart' }, 'Open the bag'))
  }
  main.append(
    h('div', { class: 'product' }, picture(one),
      h('div', { class: 'buy' },
        h('h1', {}, one.name),
        h('p', { class: 'price' }, money(one.price)),
        h('p', {}, one.about),
        h('fieldset', { id: 'size', change: countChanged }, h('legend', {}, `Size · ${one.colour}`),
          Object.keys(one.stock).map((size) => h('label', {}, h('input', { type: 'radio', name: 'size', value: size, checked: size === 'M' }), h('span', {}, size)))),
        h('button', { type: 'button', class: 'add', click: put }, 'Add to the bag'),
        told,
        h('div', { id: 'product-notes' }),
        h('ul', { class: 'facts' }, h('li', {}, 'Delivered in two to three days'), h('li', {}, 'Thirty days to return'), h('li', {}, 'Repairs in all our shops')))),
    h('section', { id: 'goes-with', class: 'with' }, h('h2', {}, 'More of this autumn'),
      h('ul', { class: 'grid' }, goods.filter(({ id }) => id !== one.id).slice(0, 3).map(card))))
  viewed(one, size(), () => add(one))
}

function bag() {
  const inside = (me.bag ?? []).map((id) => goods.find((one) => one.id === id))
  const total = inside.reduce((sum, { price }) => sum + price, 0)
  main.append(h('h1', {}, 'Your bag'),
    inside.length ? h('ul', { class: 'rows' }, inside.map((one) => h('li', {}, picture(one), h('span', {}, one.name), h('b', {}, money(one.price))))) : h('p', {}, 'It is empty.'),
    inside.length > 0 && h('p', { class: 'total' }, `Together ${money(total)}`),
    inside.length > 0 && h('button', { type: 'button', class: 'add', click: async () => {
      me = await act(me, '/fashion/api/order', {})
      main.replaceChildren(h('h1', {}, 'Thank you'), h('p', { class: 'lead' }, 'Your order is on its way.'))
      count()
    } }, 'Order'))
}

function words() {
  main.append(h('h1', {}, 'Nordhem'), h('p', { class: 'lead' }, 'Send anything back within thirty days, free of charge: the label is in the parcel.'), h('p', {}, h('a', { href: '/fashion/' }, 'Back to the shop')))
}

count()
const [, , place, id] = location.pathname.split('/')
const one = goods.find((found) => found.id === id)
if (place === 'p' && one) product(one)
else if (place === 'cart') bag()
else if (place) words()
else shop()
