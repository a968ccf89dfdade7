// Journey Bandit in pages: asks for a nudge, shows it, reports what became of it. journey.d.ts says how it is used.
// Words are text, never markup. No public method throws.

const LOOKS = {
  banner: 'edge banner', popup: 'modal', inline_widget: 'inline', tooltip: 'point', walkthrough: 'point', toast: 'edge corner',
  scratch_card: 'modal', progress_streak: 'edge corner', gamified: 'modal',
}
const MOST = 500 // items that wait; decisions that are remembered
const BYTES = 55_000 // of a batch: with key and token less than 60 kB
const MONTH = 30 * 86_400_000

// dismiss|decline|next|back|done|reveal
const NAMES = {
  en: 'Close|Don’t show this again|Next|Back|Done|Reveal',
  de: 'Schließen|Nicht mehr anzeigen|Weiter|Zurück|Fertig|Aufdecken',
  fr: 'Fermer|Ne plus afficher|Suivant|Retour|Terminer|Révéler',
  es: 'Cerrar|No volver a mostrar|Siguiente|Atrás|Listo|Revelar',
  it: 'Chiudi|Non mostrare più|Avanti|Indietro|Fine|Scopri',
  pt: 'Fechar|Não mostrar novamente|Seguinte|Voltar|Concluir|Revelar',
  nl: 'Sluiten|Niet meer tonen|Volgende|Terug|Klaar|Onthullen',
  ar: 'إغلاق|عدم العرض مرة أخرى|التالي|السابق|تم|كشف',
  he: 'סגירה|לא להציג שוב|הבא|הקודם|סיום|חשיפה',
}

const CSS = `
:host { all: initial; display: contents; font-family: var(--journey-font, inherit); font-size: medium;
  --s: var(--journey-surface, #fff); --t: var(--journey-text, #191b20); --m: var(--journey-muted, #585d68);
  --a: var(--journey-accent, #2c50cf); --o: var(--journey-on-accent, #fff);
  --r: var(--journey-radius, 14px); --l: color-mix(in srgb, var(--t) 14%, var(--s)) }
:host(.inline) { display: block }
@media (prefers-color-scheme: dark) { :host {
  --s: var(--journey-surface, #1d1f25); --t: var(--journey-text, #f1f2f5); --m: var(--journey-muted, #abb0bc);
  --a: var(--journey-accent, #9fb6ff); --o: var(--journey-on-accent, #10131c) } }
* { box-sizing: border-box; margin: 0; padding: 0; font: inherit; color: inherit }
[hidden] { display: none !important }
.p { position: fixed; z-index: var(--journey-z, 2147483000); inset: auto; display: flex; max-block-size: calc(100dvh - 2em);
  overflow: auto; overflow-wrap: anywhere; text-align: start; line-height: 1.5;
  background: var(--s); color: var(--t); border: 1px solid var(--l); border-radius: var(--r); box-shadow: 0 12px 40px #0b10202e }
.p:focus { outline: 0 }
:focus-visible { outline: 3px solid var(--a); outline-offset: 2px }
.b { flex: 1 1 11em; min-inline-size: 0; display: grid; align-content: center; gap: .75em; padding: 1.25em 1.25em .75em }
.w { display: grid; gap: .25em; padding-inline-end: 2em }
h2 { font-size: 1.0625em; font-weight: 600; line-height: 1.35 }
p { font-size: .9375em; color: var(--m); white-space: pre-line }
span { font-variant-numeric: tabular-nums }
img { flex: none; object-fit: cover; background: var(--l) }
.c { display: flex; flex-wrap: wrap; align-items: center; gap: .25em 1em }
a, button { display: inline-flex; align-items: center; justify-content: center; min-block-size: 2.75em; padding: .5em 1.25em;
  border: 1px solid transparent; border-radius: max(2px, calc(var(--r) - 4px)); background: none; font-weight: 600;
  text-decoration: none; cursor: pointer }
.f { background: var(--a); color: var(--o) }
.f:hover { opacity: .9 }
.q { border-color: var(--m) }
[part=decline] { min-block-size: 3.5em; padding: 0; font-size: .8125em; font-weight: 400; color: var(--m); text-decoration: underline }
[part=dismiss] { position: absolute; inset-block-start: .375em; inset-inline-end: .375em; inline-size: 2.75em; padding: 0;
  border-radius: 50%; background: var(--s); color: var(--m) }
[part=dismiss]::before { content: "✕" / "" }
.modal, .mid { inset: 0; margin: auto; block-size: fit-content }
.modal { inline-size: min(26em, 100% - 2em); flex-direction: column }
.modal .b { flex: none; padding: 1.75em 1.5em 1em; gap: 1em }
.modal h2 { font-size: 1.375em }
.modal .c { justify-content: center }
.modal .f, .modal .q { flex: 1 0 100% }
.modal > img, .point > img { inline-size: 100%; aspect-ratio: 16 / 9 }
::backdrop { background: #0b102080 }
.edge { flex-wrap: wrap }
.edge > img { inline-size: 3.5em; block-size: 3.5em; margin-block: 1.25em; margin-inline: 1.25em 0; border-radius: 8px }
.banner { inset: auto 1em 1em; margin: auto; max-inline-size: 60em; align-items: center }
.edge.top { inset-block: 1em auto }
.banner .b { grid-template-columns: 1fr auto; align-items: center; padding: .75em 1.25em; padding-inline-end: 3.5em }
.banner .w { padding: 0 }
.corner { inset-block-end: 1em; inset-inline-end: 1em; inline-size: min(25em, 100% - 2em) }
.inline { position: relative; z-index: auto; max-block-size: none; box-shadow: none; flex-wrap: wrap }
.inline > img { flex: 1 1 9em; inline-size: 9em; max-block-size: 14em }
.inline .b { flex: 4 1 15em }
.point { inline-size: 22em; max-inline-size: calc(100% - 1em); max-block-size: none; overflow: visible; flex-direction: column }
.point .b { max-block-size: calc(100dvh - 4em); overflow: auto }
@media (max-height: 40em) { .modal > img, .point > img { display: none } }
.point > img { border-radius: var(--r) var(--r) 0 0 }
.at::before { content: ""; position: absolute; top: -7px; left: var(--x); inline-size: 12px; block-size: 12px; rotate: 45deg;
  background: var(--s); border: 1px solid var(--l); border-width: 1px 0 0 1px }
.over::before { top: auto; bottom: -7px; rotate: 225deg }
.n { margin-inline-end: auto }
.box { position: relative }
.area { display: grid; gap: 1em; align-content: center; min-block-size: 9em; padding: 1.25em; text-align: center }
.area, canvas { border: 1px dashed var(--m); border-radius: 8px }
canvas { position: absolute; inset: 0; inline-size: 100%; block-size: 100%; touch-action: none; cursor: grab }
.off { display: none }
progress { inline-size: 100%; accent-color: var(--a) }
@media (max-width: 40em) { .banner .b { grid-template-columns: 1fr; gap: .25em; padding: 1em 1.25em .25em } .banner .w { padding-inline-end: 2em }
  .banner > img { display: none } }
@media (prefers-reduced-motion: no-preference) { .p { animation: in .2s } @keyframes in { from { opacity: 0; translate: 0 8px } }
  .off { display: block; opacity: 0; pointer-events: none; transition: opacity .3s } }
`

const held = new Map() // decisions that this tab alone may show, each with what gives it back
let sheet = null // of all surfaces
let open = null // the surface of this page: there is one at a time

const warn = (error) => (console.warn('Journey Bandit:', error?.message ?? error), null)

// What `act` gives; null and a warning if it fails.
function safely(act) {
  try {
    const given = act()
    return given instanceof Promise ? given.catch(warn) : given
  } catch (error) {
    return warn(error)
  }
}

// Addresses of blobs end with a new UUID; crypto.randomUUID is there with TLS only.
function uuid() {
  const address = URL.createObjectURL(new Blob())
  URL.revokeObjectURL(address)
  return address.slice(-36)
}

function name(text, what) {
  if (text && typeof text === 'string' && text.length <= 256) return text
  throw Error(`${what}: a text of 1 to 256 characters is needed`)
}

const sleep = (ms) => new Promise((done) => setTimeout(done, ms))
const bytes = (text) => new TextEncoder().encode(text).length
const passing = (status) => status >= 500 || status === 408 || status === 429
const problem = (reply) => reply.json().catch(() => null)

// Milliseconds until the next try.
function backoff(n, reply) {
  const asked = 1000 * reply?.headers.get('Retry-After')
  return (1 + Math.random()) * Math.min(30_000, 250 * 2 ** n) + (asked || 0)
}

// Whether this tab may show the decision: no other has it.
const hold = (id) => new Promise((done) => {
  if (held.has(id) || !navigator.locks) return done(true)
  navigator.locks.request(`journey-bandit:${id}`, { ifAvailable: true }, (lock) => {
    done(Boolean(lock))
    return lock && new Promise((free) => held.set(id, free))
  }).catch(() => done(true))
})

function release(id) {
  held.get(id)?.()
  held.delete(id)
}

// localStorage, or memory where there is none. One entry an item: tabs do not overwrite each other's.
class Shelf {
  #memory = {}
  constructor(area, prefix) {
    this.area = area
    this.prefix = prefix
  }
  get(name) {
    try {
      return JSON.parse(this.#memory[name] ?? this.area.getItem(this.prefix + name))
    } catch {
      return null
    }
  }
  set(name, value) {
    const text = JSON.stringify(value)
    try {
      this.area.setItem(this.prefix + name, text)
    } catch {
      this.#memory[name] = text
    }
  }
  delete(name) {
    delete this.#memory[name]
    this.area?.removeItem(this.prefix + name)
  }
  names(begin) {
    const kept = Object.keys(this.area ?? {}).filter((name) => name.startsWith(this.prefix)).map((name) => name.slice(this.prefix.length))
    return [...kept, ...Object.keys(this.#memory)].filter((name) => name.startsWith(begin)).sort()
  }
}

// Calls `done` once `element`, or the page alone, was visible for a second without a break.
function watch(element, done, signal) {
  let timer = 0
  let inside = !element
  const check = () => {
    const visible = inside && document.visibilityState === 'visible' && !signal.aborted
    if (visible) timer ||= setTimeout(done, 1000)
    else timer = void clearTimeout(timer)
  }
  document.addEventListener('visibilitychange', check, { signal })
  signal.addEventListener('abort', check)
  if (!element) return check()
  const observer = new IntersectionObserver((entries) => {
    const { intersectionRatio, intersectionRect: part } = entries.at(-1)
    inside = intersectionRatio >= 0.5 || part.width * part.height >= 0.5 * innerWidth * innerHeight
    check()
  }, { threshold: Array.from({ length: 21 }, (_, i) => i / 20) })
  observer.observe(element)
  signal.addEventListener('abort', () => observer.disconnect())
}

function canonical(tag) {
  try {
    return new Intl.Locale(String(tag).slice(0, 35).replaceAll('_', '-'))
  } catch {
    return new Intl.Locale('en')
  }
}

// Values of placeholders: texts, and functions of the service's time for what changes.
function valuesOf({ nudge, evidence = {} }, locale, number) {
  const values = Object.create(null)
  const unit = (n, name) => number(Math.floor(n), { style: 'unit', unit: name, unitDisplay: 'long' })
  for (const [name, value] of Object.entries(nudge.payload ?? {}))
    if (typeof value === 'string') values[name] = value
    else if (Number.isFinite(value)) values[name] = number(value)
  // Claims need evidence, whatever the payload says.
  values.stock = Number.isFinite(evidence.stock) ? number(evidence.stock) : null
  const ends = Date.parse(evidence.deadline)
  values.deadline = !ends ? null : (now) => {
    const left = Math.max(0, Math.ceil((ends - now) / 1000))
    const clock = new Date(left * 1000).toLocaleTimeString(locale, { hourCycle: 'h23', timeZone: 'UTC' })
    return left < 86_400 ? clock : `${unit(left / 86_400, 'day')} ${clock}`
  }
  const looked = Date.parse(evidence.as_of)
  values.age = !looked ? null : (now) => {
    const minutes = Math.max(1, Math.ceil((now - looked) / 60_000)) // never less than it is
    return minutes < 60 ? unit(minutes, 'minute') : minutes < 1440 ? unit(minutes / 60, 'hour') : unit(minutes / 1440, 'day')
  }
  return values
}

const parts = (text, values) => String(text ?? '').split(/\{([^{}]*)\}/).map((part, i) => {
  const value = i % 2 ? values[part] : part
  if (value == null) throw Error(`there is no value for {${part}}`)
  return value
})

function safeLink(link) {
  const base = document.baseURI
  const url = new URL(link, base)
  const own = url.origin === new URL(base).origin
  if (/^https?:\/\//i.test(link) ? own || url.protocol === 'https:' : own && link[0] === '/') return url.href
  throw Error(`link: ${link} is not safe`)
}

function safeImage(image, service) {
  if (/^https:\/\//i.test(image)) return image
  if (/^\/[^/\\]/.test(image)) return service + image
  throw Error(`image: ${image} is not safe`)
}

function styles() {
  if (!sheet) (sheet = new CSSStyleSheet()).replaceSync(CSS)
  return sheet
}

function el(tag, attributes, ...children) {
  const node = document.createElement(tag)
  for (const name in attributes) node.setAttribute(name, attributes[name])
  node.append(...children)
  return node
}

// The page's path, with the route of pages that keep it in the fragment.
const here = () => location.pathname + (/^#!?\//.test(location.hash) ? location.hash.replace('!', '') : '')

function find(anchor) {
  const found = anchor && (anchor.nodeType ? anchor : document.querySelector(anchor))
  return found && found.getClientRects().length ? found : null
}

// The node with this text; `live` has what keeps it up to date.
function write(node, text, { values, now, live }) {
  const ticks = []
  node.dir = 'auto'
  node.replaceChildren(...parts(text, values).map((part) => {
    if (typeof part === 'string') return part
    const place = el('span', part === values.deadline && { role: 'timer' })
    const tick = () => place.textContent === part(now()) || (place.textContent = part(now()))
    tick()
    ticks.push(tick)
    return place
  }))
  live.set(node, ticks)
  return node
}

// Puts the panel below or above its anchor.
function place(panel, anchor) {
  const { left, top, bottom, width } = anchor.getBoundingClientRect()
  const { offsetWidth: wide, offsetHeight: high } = panel
  const middle = left + width / 2
  const start = Math.max(8, Math.min(middle - wide / 2, document.documentElement.clientWidth - wide - 8))
  const over = bottom + high + 14 > innerHeight && top > high + 14
  const at = Math.max(8, Math.min(over ? top - high - 14 : bottom + 14, innerHeight - high - 8)) // all of it in view
  const sizes = { left: start, top: at, '--x': Math.max(12, Math.min(middle - start - 6, wide - 26)) }
  for (const name in sizes) panel.style.setProperty(name, `${sizes[name]}px`)
  panel.classList.toggle('over', over)
}

// Covers the area until a pointer scratches or a button is pressed. Gives what paints the cover.
function cover(area, controls, name) {
  const canvas = el('canvas', { 'aria-hidden': true })
  const button = el('button', { class: 'q', part: 'reveal' }, name)
  const box = el('div', { class: 'box' }, canvas)
  area.replaceWith(box)
  box.prepend(area)
  area.inert = true
  area.tabIndex = -1
  const reveal = button.onclick = () => {
    area.inert = false
    area.focus()
    canvas.className = 'off'
    button.remove()
  }
  controls.prepend(button)
  return () => {
    const wide = canvas.width = area.offsetWidth
    const high = canvas.height = area.offsetHeight
    const pen = canvas.getContext('2d')
    const style = getComputedStyle(area)
    pen.fillStyle = style.getPropertyValue('--a')
    pen.strokeStyle = style.getPropertyValue('--o')
    pen.fillRect(0, 0, wide, high)
    pen.globalAlpha = 0.1
    pen.lineWidth = 10
    for (let x = -high; x < wide; x += 28) pen.stroke(new Path2D(`M${x} ${high}l${high} ${-high}`))
    pen.globalAlpha = 1
    pen.lineWidth = 40
    pen.lineCap = 'round'
    pen.globalCompositeOperation = 'destination-out'
    const seen = new Set()
    let last
    canvas.onpointerdown = () => (last = null)
    canvas.onpointermove = ({ offsetX: x, offsetY: y, buttons }) => {
      if (!buttons) return
      pen.stroke(new Path2D(`M${last ?? [x, y]}L${x} ${y}`))
      last = [x, y]
      if (seen.add(`${x >> 5} ${y >> 5}`).size * 1024 > wide * high * 0.4) reveal()
    }
  }
}

// Steps after the title and text; gives what shows the first.
function steps(view, { title, text, words, controls, action, follow, picture }) {
  const { content, labels, number } = view
  const all = [{ ...content, anchor: view.anchor }, ...(content.steps ?? [])]
  for (const step of all) parts(step.title + step.text, view.values) // checked before the first is shown
  const count = el('p', { class: 'n', role: 'status' })
  const back = el('button', { class: 'q', part: 'back' }, labels.back)
  const next = el('button', { class: 'f', part: 'next' }, labels.next)
  const last = all.length - 1
  let at = 0
  const go = (to) => {
    const had = controls.querySelector(':focus')
    const first = to === at
    const step = all[(at = to)]
    write(title, step.title, view)
    if (step.text) words.append(write(text, step.text, view))
    else text.remove()
    count.textContent = `${number(at + 1)} / ${number(all.length)}`
    back.hidden = !at
    next.hidden = at === last
    action.hidden = at < last
    if (picture) picture.hidden = at > 0
    const target = safely(() => find(step.anchor))
    if (!first) target?.scrollIntoView({ block: 'center' })
    const { top, bottom } = target?.getBoundingClientRect() ?? {}
    follow(first && !(bottom > 0 && top < innerHeight) ? null : target)
    if (had?.hidden) (at < last ? next : action).focus()
  }
  back.onclick = () => go(at - 1)
  next.onclick = () => go(at + 1)
  controls.append(count, back, next, action)
  return () => go(0)
}

// The surface, not yet in the page. `press(kind, event)`: the user answers.
function draw(view, press) {
  const { shape, content, labels, image, link, anchor, progress, of, number } = view
  const walk = shape === 'walkthrough'
  const scratch = shape === 'scratch_card'
  const streak = shape === 'progress_streak'
  const look = streak && anchor ? 'inline' : LOOKS[shape]
  const modal = look === 'modal'
  const inline = look === 'inline'
  const point = look === 'point'
  const panel = el(modal ? 'dialog' : 'section', { class: `p ${look} ${view.edge}`, part: 'surface', 'aria-labelledby': 'h', tabindex: -1,
    role: modal || point ? 'dialog' : shape === 'toast' ? 'status' : 'region', 'aria-atomic': false })
  const button = (kind, part, look = '', name) => {
    const leads = part === 'action' && link
    const node = el(leads ? 'a' : 'button', { part, class: look, ...(leads && { href: link }) })
    node.onclick = (event) => press(kind, event)
    return name ? write(node, name, view) : node
  }
  const title = write(el('h2', { id: 'h' }), content.title, view)
  const text = write(el('p'), content.text, view)
  const words = el('div', { class: 'w' }, title)
  const controls = el('div', { class: 'c' })
  const body = el('div', { class: 'b' }, words, controls)
  const call = content.button || (walk && labels.done)
  const action = call ? button('Clicked', 'action', 'f', call) : ''
  const dismiss = button('Dismissed', 'dismiss')
  dismiss.ariaLabel = labels.dismiss
  const decline = button('Declined', 'decline')
  decline.textContent = labels.decline
  const picture = image && el('img', { alt: write(el('p'), content.alt, view).textContent, src: image })
  if (picture) picture.onerror = () => picture.remove()
  let update = () => {}
  const follow = (target) => {
    panel.classList.toggle('at', target)
    panel.classList.toggle('mid', !target)
    update = () => target?.isConnected && place(panel, target)
    for (const side of ['left', 'top']) panel.style.removeProperty(side)
    update()
  }
  let shown = shape === 'tooltip' ? () => follow(anchor) : () => {}
  if (scratch) {
    const area = el('div', { class: 'area' }, content.text ? text : '', action)
    words.after(area)
    shown = cover(area, controls, labels.reveal)
  } else if (content.text) words.append(text)
  if (walk) shown = steps(view, { title, text, words, controls, action, follow, picture })
  else if (!scratch) controls.append(action)
  if (streak && progress !== undefined) {
    const told = `${number(progress)} / ${number(of)}`
    const bar = el('progress', { max: of, value: progress, 'aria-labelledby': 'h', 'aria-valuetext': told })
    words.after(bar, el('p', { 'aria-hidden': true }, told))
  }
  controls.append(decline)
  panel.append(picture || '', body, dismiss)
  const root = el('journey-nudge', { lang: view.locale, dir: view.dir, class: inline ? 'inline' : '', 'data-format': view.nudge.format,
    'data-nudge': view.nudge.id })
  const shadow = root.attachShadow({ mode: 'open' })
  shadow.adoptedStyleSheets = [styles()]
  shadow.append(panel)
  return { root, panel, modal, inline, point, shown, update: () => update() }
}

export class Journey {
  #options = {}
  #url = ''
  #shelf = new Shelf(null, '')
  #user = null
  #tokens = new Map() // of each user: {source, text}
  #blocked = new Set() // users whose token the service refused
  #made = new Map() // decisions by id: {user, path, at}
  #sending = null
  #failures = 0
  #count = 1e6 // names are sorted
  #soon = 0
  #wake = () => {}

  constructor(options) {
    safely(() => {
      const { key, service, silent, storage } = options
      this.#options = { silent: true } // until all of it is known to be good
      if (!silent) name(key, 'key')
      this.#url = String(service ?? import.meta.url.split('/v1/browser/')[0]).replace(/\/+$/, '')
      this.#options = options
      if (silent) return
      let area = storage
      try {
        if (area === undefined) area = localStorage
      } catch {} // not allowed here
      this.#shelf = new Shelf(area, `journey-bandit:${key}:`)
      addEventListener('online', () => this.#wake())
      addEventListener('pagehide', () => this.#beacon())
      document.addEventListener('visibilitychange', () => document.visibilityState === 'hidden' && this.#beacon())
    })
  }

  identify(userId, options) {
    safely(() => {
      const user = Number.isFinite(userId) ? String(userId) : userId
      const former = this.#user
      const source = options?.token ?? this.#options.token
      this.#user = typeof user === 'string' && user ? user : null
      if (former !== null && user !== former) {
        this.close()
        const known = this.#tokens.get(former)
        if (known?.text) known.source = null // whose tokens would it give now?
        else this.#tokens.delete(former)
      }
      if (this.#user === null) return userId === null || name(userId, 'user') // nobody from now on
      if (source) this.#tokens.set(user, { source, text: typeof source === 'string' ? source : null })
      this.#blocked.delete(user)
      this.#flush()
    })
  }

  track(event, properties) {
    safely(() => {
      this.#put({ user: name(this.#user, 'user'), id: uuid(), event: name(event, 'event'), properties: properties ?? {} })
      this.#soon ||= setTimeout(() => this.#flush(), 500)
    })
  }

  async decide(options) {
    return safely(() => this.#decide(options ?? {}))
  }

  show(decision, options) {
    if (!decision) return null
    const surface = safely(() => this.#show(decision, options ?? {}))
    if (!surface && open?.decision !== decision.decision_id) release(decision.decision_id)
    return surface
  }

  async nudge(options) {
    return this.show(await this.decide(options), options)
  }

  close() {
    open?.close()
  }

  #put(item) {
    if (this.#options.silent) return
    if (bytes(JSON.stringify(item)) > BYTES) throw Error(`${item.event} is too large to be sent`)
    const waiting = this.#shelf.names('q')
    while (waiting.length >= MOST) this.#shelf.delete(waiting.shift())
    const at = Date.now()
    this.#shelf.set(`q${at}-${this.#count++}-${item.id}`, { ...item, at })
  }

  // What waits, in order, for each user whose token is known and not refused.
  *#batches() {
    const signed = this.#tokens.has(this.#user)
    let batch = null
    let size = 0
    for (const name of this.#shelf.names('q')) {
      const item = this.#shelf.get(name)
      const since = Date.now() - item?.at
      if (!(since < MONTH)) {
        this.#shelf.delete(name)
        continue
      }
      const { user, id, event, properties } = item
      if (this.#blocked.has(user) || (signed && !this.#tokens.has(user))) continue
      const sent = event && { event_id: id, event, properties, ago: Math.max(0, Math.floor(since / 1000)) }
      const more = bytes(JSON.stringify(item))
      if (batch && !(user === batch.user && sent && batch.more.events?.length < 50 && size + more <= BYTES)) {
        yield batch
        batch = null
      }
      if (!batch) size = 0
      batch ??= { user, names: [], path: sent ? 'events' : 'activations', more: sent ? { events: [] } : { decision_id: id } }
      batch.names.push(name)
      batch.more.events?.push(sent)
      size += more
    }
    if (batch) yield batch
  }

  // Sends what waits, one tab at a time, until nothing is left that can be sent.
  #flush() {
    this.#soon = clearTimeout(this.#soon)
    if (this.#options.silent || this.#user === null) return
    return (this.#sending ??= this.#drain().catch(warn).then((ended) => {
      this.#sending = null
      if (ended && !this.#batches().next().done) return this.#flush() // it came while this ended
    }))
  }

  async #drain() {
    for (;;) {
      const one = async () => {
        const { value } = this.#batches().next()
        return value ? this.#send(value) : -1
      }
      const wait = await (navigator.locks ? navigator.locks.request(`journey-bandit:${this.#options.key}`, one) : one())
      if (wait < 0) return true
      if (wait) await Promise.race([sleep(wait), new Promise((done) => (this.#wake = done))])
    }
  }

  // Milliseconds to wait before the next batch.
  async #send({ user, path, names, more }) {
    let reply = null
    try {
      reply = await this.#post(path, user, more, AbortSignal.timeout(10_000))
      const { status, ok } = reply
      if (status === 401 || (more.events && [403, 404].includes(status))) return this.#blocked.add(user), 0 // they wait
      if (passing(status)) throw Error()
      const told = await problem(reply)
      const items = names.map((_, i) => (ok && more.events ? told.events[i] : { status, problem: told }))
      names.forEach((name, i) => {
        if (passing(items[i].status)) return
        if (items[i].status >= 400) warn(`refused: ${items[i].problem?.detail ?? items[i].status}`)
        this.#shelf.delete(name)
      })
      if (items.some((item) => passing(item.status))) throw Error()
      this.#failures = 0
      return 0
    } catch {
      return backoff(this.#failures++, reply)
    }
  }

  // What is left is kept, too: with the same ids nothing happens twice.
  #beacon() {
    safely(() => {
      if (this.#user === null) return
      for (const { user, path, more } of this.#batches())
        if (this.#tokens.get(user)?.text !== null) navigator.sendBeacon(`${this.#url}/v1/browser/${path}`, this.#body(user, more))
    })
  }

  #body(user, more) {
    return JSON.stringify({ key: this.#options.key, token: this.#tokens.get(user)?.text ?? '', user_id: user, ...more })
  }

  // After a 401 the page is asked for a token once more.
  async #post(path, user, more, signal) {
    for (let again = false; ; again = true) {
      const known = this.#tokens.get(user)
      const asks = typeof known?.source === 'function'
      if (asks && (again || known.text === null))
        known.text = String(await Promise.race([known.source(), sleep(10_000).then(() => Promise.reject(Error()))]))
      const reply = await fetch(`${this.#url}/v1/browser/${path}`, { method: 'POST', body: this.#body(user, more), signal, credentials: 'omit' })
      if (reply.status !== 401 || again || !asks) return reply
    }
  }

  get #formats() {
    return Object.keys(LOOKS).filter((one) => this.#options.formats?.includes(one) ?? true)
  }

  get #locale() {
    return canonical(this.#options.locale || document.documentElement.lang || navigator.language)
  }

  async #decide({ stage, context, consent, evidence }) {
    const { silent, patience = 2000 } = this.#options
    if (silent) return null
    const user = name(this.#user, 'user')
    const path = here()
    const ends = performance.now() + patience
    const asked = { decision_id: (this.#options.newId ?? uuid)(), page: path, formats: this.#formats, locale: String(this.#locale), stage, context, consent }
    JSON.stringify(asked) // throws now what could not be sent
    const stop = new AbortController()
    const over = () => stop.signal.aborted || performance.now() > ends || here() !== path || this.#user !== user
    const work = async () => {
      this.#blocked.delete(user)
      const [signed] = await Promise.all([typeof evidence === 'function' ? evidence() : evidence, this.#flush()])
      const decision = await this.#ask(user, { ...asked, evidence: signed ?? undefined }, stop.signal)
      if (!decision || over()) return null
      this.#made.set(decision.decision_id, { user, path, at: Date.now() })
      this.#tell('decided', decision)
      if (decision.nudge.id === 'none') this.#none(decision, path)
      else if (!(await hold(decision.decision_id))) return null
      else if (over()) return release(decision.decision_id), null
      return decision
    }
    sleep(0).then(() => styles(new Intl.NumberFormat(asked.locale).format(0))) // what takes its time the first time
    let timer
    const late = new Promise((done) => (timer = setTimeout(() => done(null, stop.abort()), patience)))
    return Promise.race([work(), late]).finally(() => clearTimeout(timer))
  }

  // The service's decision, asked for under one id while there is patience.
  async #ask(user, asked, signal) {
    for (let n = 0; !signal.aborted && !this.#blocked.has(user); n++) {
      let reply = null
      try {
        reply = await this.#post('decisions', user, asked, signal)
        if (reply.ok) return await reply.json().finally(() => performance.mark('journey:reply'))
      } catch {} // no network, or no token
      if (reply?.status === 401) this.#blocked.add(user)
      else if (reply && !reply.ok && !passing(reply.status)) return warn((await problem(reply))?.detail ?? reply.status)
      else await sleep(backoff(n, reply))
    }
    return null
  }

  // No nudge counts, too, but only where one could have been shown.
  #none(decision, path) {
    if (!open && decision.moment !== null)
      watch(null, () => here() === path && this.#seen(decision), new AbortController().signal)
  }

  #seen(decision) {
    const id = decision.decision_id
    if (this.#shelf.get(`d${id}`)?.seen) return
    this.#remember(id, { seen: 1 })
    const user = this.#made.get(decision.decision_id)?.user ?? this.#user
    if (user !== null) this.#put({ user, id })
    this.#tell('activated', decision)
    this.#flush()
  }

  #remember(id, what) {
    const others = this.#shelf.names('d').filter((name) => name !== `d${id}`).map((name) => [this.#shelf.get(name)?.at ?? 0, name])
    if (others.length >= MOST) this.#shelf.delete(others.sort(([a], [b]) => a - b)[0][1])
    this.#shelf.set(`d${id}`, { ...this.#shelf.get(`d${id}`), ...what, at: Date.now() })
  }

  #tell(type, decision) {
    safely(() => this.#options.onChange?.({ type, decision }))
  }

  #show(decision, { anchor, host, progress, navigate }) {
    const { decision_id: id, nudge, evidence } = decision
    if (open && !open.element.isConnected) open.close()
    if (open || document.querySelector('journey-nudge') || nudge.id === 'none' || !this.#formats.includes(nudge.format)) return null
    const path = here()
    const made = this.#made.get(decision.decision_id) ?? { user: this.#user, path, at: Date.now() }
    const { user } = made
    const now = () => Date.now() - made.at + (Date.parse(decision.now) || made.at)
    const ends = Date.parse(evidence?.deadline)
    if (this.#shelf.get(`d${id}`)?.closed || made.path !== path || user !== this.#user) return null
    if (ends <= now() || Date.parse(decision.expires_at) <= now()) return null
    const content = decision.content ?? nudge.payload
    if (!content.title) throw Error(`${nudge.id} has no title`)
    const shape = nudge.format === 'gamified' ? 'scratch_card' : nudge.format
    const target = find(anchor ?? content.anchor)
    if (!target && (shape === 'inline_widget' || shape === 'tooltip')) return null
    const tag = decision.content?.locale ? canonical(decision.content.locale) : this.#locale
    const locale = String(tag)
    const number = (n, more) => new Intl.NumberFormat(locale, more).format(n)
    const [dismiss, decline, next, back, done, reveal] = (NAMES[tag.language] ?? NAMES.en).split('|')
    const of = Number(nudge.payload?.of ?? nudge.payload?.days)
    const view = {
      nudge, shape, content, locale, number, now, of, anchor: target, live: new Map(),
      values: valuesOf(decision, locale, number),
      labels: { dismiss, decline, next, back, done, reveal, ...this.#options.labels },
      dir: /Arab|Hebr|Thaa|Syrc|Nkoo|Adlm/.test(tag.maximize().script) ? 'rtl' : getComputedStyle(document.documentElement).direction,
      image: content.image && safeImage(content.image, this.#url),
      link: content.link && safeLink(content.link),
      progress: of > 0 && progress >= 0 ? Math.min(progress, of) : undefined,
      edge: nudge.payload?.position === 'top' ? 'top' : '',
    }
    const gone = new AbortController()
    const { signal } = gone
    const press = (kind, event) => {
      if (signal.aborted) return event?.preventDefault()
      this.#seen(decision) // who answers has seen it, however quickly
      surface.close()
      this.#remember(id, { closed: 1 })
      const properties = { nudge: `${decision.stage}.${nudge.id}`, decision: id }
      const type = kind.toLowerCase()
      if (user !== null) this.#put({ user, id: `${id}:${type}`, event: `Nudge ${kind}`, properties })
      this.#flush()
      this.#tell(type, decision)
      if (type !== 'clicked' || !view.link || !navigate || event.metaKey || event.ctrlKey || event.shiftKey) return
      event.preventDefault()
      safely(() => navigate(view.link))
    }
    const { root, panel, modal, inline, point, shown, update } = draw(view, press)
    const before = document.activeElement
    let timer = 0
    const surface = open = {
      element: root,
      decision: id,
      close: () => safely(() => {
        if (signal.aborted) return
        gone.abort()
        clearInterval(timer)
        open = null
        const had = modal || root.matches(':focus-within')
        root.remove()
        release(id)
        if (had) before?.focus?.({ preventScroll: true })
        this.#tell('closed', decision)
      }),
    }
    try {
      ;(inline ? target : (host ?? document.body)).append(root)
      if (modal) panel.showModal()
      shown()
      if (modal) panel.focus({ preventScroll: true }), (panel.scrollTop = 0)
    } catch (error) {
      surface.close()
      throw error
    }
    performance.mark('journey:shown')
    const tick = () => {
      if (here() !== path || !root.isConnected || ends <= now()) return surface.close()
      view.live.forEach((ticks) => ticks.forEach((one) => one()))
      update()
    }
    timer = setInterval(() => safely(tick), 250)
    watch(panel, () => this.#seen(decision), signal)
    const on = (target, type, act) => target?.addEventListener(type, act, { signal, capture: true })
    for (const type of ['scroll', 'resize', 'popstate']) on(window, type, tick)
    on(window.navigation, 'currententrychange', tick)
    on(panel, 'cancel', (event) => press('Dismissed', event.preventDefault()))
    on(panel, 'click', (event) => modal && event.target === panel && press('Dismissed')) // the backdrop
    on(point ? document : panel, 'keydown', (event) => {
      if (event.key === 'Escape' && !modal) press('Dismissed')
    })
    this.#tell('shown', decision)
    return surface
  }
}
