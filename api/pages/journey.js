/**
 * Journey Bandit in pages: asks for a nudge, shows it, and reports what was seen and clicked.
 *
 * One module without dependencies. Nothing here may break a page: every public method catches its errors, warns once on
 * the console and shows nothing. Texts are text, never markup; styles are adopted, so a strict CSP needs no exception.
 */

const EVENTS = { clicked: 'Nudge Clicked', dismissed: 'Nudge Dismissed', declined: 'Nudge Declined' }
const FORMATS = ['banner', 'popup', 'inline_widget', 'tooltip', 'walkthrough', 'toast', 'scratch_card', 'progress_streak', 'gamified']
const MODAL = ['popup', 'scratch_card']
const MOST = 500 // items that wait, and decisions that are remembered
const BATCH = 50
const BYTES = 55_000 // of a batch; with key and token a body stays below 60 kB
const MONTH = 30 * 86_400_000
const RTL = /^(Adlm|Arab|Hebr|Mand|Mend|Nkoo|Rohg|Samr|Syrc|Thaa)$/

// dismiss | decline | next | back | done | reveal
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
  --a: var(--journey-accent, #2c50cf); --o: var(--journey-on-accent, #fff); --r: var(--journey-radius, 14px);
  --l: color-mix(in srgb, var(--t) 14%, transparent) }
@media (prefers-color-scheme: dark) { :host { --s: var(--journey-surface, #1d1f25); --t: var(--journey-text, #f1f2f5);
  --m: var(--journey-muted, #abb0bc); --a: var(--journey-accent, #9fb6ff); --o: var(--journey-on-accent, #10131c) } }
* { box-sizing: border-box; margin: 0; padding: 0; font: inherit; color: inherit; letter-spacing: inherit }
.p { position: fixed; z-index: var(--journey-z, 2147483000); inset: auto; display: flex; max-block-size: calc(100dvh - 2em);
  overflow: auto; overscroll-behavior: contain; overflow-wrap: anywhere; text-align: start; line-height: 1.5;
  background: var(--s); color: var(--t); border: 1px solid var(--l); border-radius: var(--r);
  box-shadow: 0 2px 6px #0b102014, 0 16px 40px #0b102029 }
.p:focus { outline: 0 }
:focus-visible { outline: 3px solid var(--a); outline-offset: 2px }
.b { flex: 1; min-inline-size: 0; display: grid; align-content: center; gap: .75em; padding: 1.25em }
.w { display: grid; gap: .25em; padding-inline-end: 2em }
h2 { font-size: 1.0625em; font-weight: 650; line-height: 1.35; text-wrap: balance }
p { font-size: .9375em; color: var(--m); white-space: pre-line; text-wrap: pretty }
span { font-variant-numeric: tabular-nums; white-space: nowrap }
img { flex: none; object-fit: cover; background: var(--l) }
.c { display: flex; flex-wrap: wrap; align-items: center; gap: .25em 1em }
a, button { display: inline-flex; align-items: center; justify-content: center; min-block-size: 2.75em; border: 1px solid transparent;
  border-radius: max(2px, calc(var(--r) - 4px)); background: none; text-decoration: none; cursor: pointer }
.f { padding: .5em 1.25em; background: var(--a); color: var(--o); font-weight: 600 }
.f:hover { background: color-mix(in srgb, var(--a) 88%, var(--t)) }
.q { padding: .5em 1.25em; border-color: var(--l); font-weight: 600 }
[part=decline] { font-size: .8125em; min-block-size: 3.375em; color: var(--m); text-decoration: underline 1px; text-underline-offset: 3px }
[part=dismiss] { position: absolute; inset-block-start: .375em; inset-inline-end: .375em; inline-size: 2.75em; border-radius: 50%;
  color: var(--m) }
[part=dismiss]::before { content: "✕" / ""; font-size: .9em; line-height: 1 }
[part=decline]:hover, [part=dismiss]:hover { color: var(--t) }
.popup, .scratch_card { inset: 0; margin: auto; inline-size: min(26em, 100% - 2em); block-size: fit-content; flex-direction: column }
.popup .b, .scratch_card .b { padding: 1.75em 1.5em 1em; gap: 1em; flex: none }
.popup h2, .scratch_card h2 { font-size: 1.375em; letter-spacing: -.01em }
.popup .f, .scratch_card .f, .scratch_card .q { flex: 1 0 100% }
.popup .c, .scratch_card .c { justify-content: center }
.popup > img, .scratch_card > img { inline-size: 100%; aspect-ratio: 16 / 9 }
img ~ [part=dismiss] { background: var(--s) }
::backdrop { background: #0b102080 }
.banner { inset: auto 1em 1em; margin-inline: auto; max-inline-size: 60em }
.banner.top { inset-block: 1em auto }
.banner .b { grid-template-columns: 1fr auto; align-items: center; padding: .875em 3.5em .875em 1.25em; padding-inline: 1.25em 3.5em }
.banner .w { padding: 0 }
.banner > img { inline-size: 6em; min-block-size: 100% }
.toast, .progress_streak { inset: auto auto 1em; inset-inline-end: 1em; inline-size: min(24em, 100% - 2em) }
.toast > img, .progress_streak > img { inline-size: 5em }
.toast .b { gap: .25em; padding-block-end: .5em }
.toast .c { margin-block-start: .25em }
.inline { position: relative; z-index: auto; inset: auto; inline-size: auto; max-block-size: none; box-shadow: none; flex-wrap: wrap }
.inline > img { flex: 1 1 9em; min-inline-size: 0; max-block-size: 14em; inline-size: 9em }
.inline .b { flex: 4 1 15em }
.tooltip, .walkthrough { inline-size: max-content; max-inline-size: min(22em, 100% - 1em); overflow: visible; flex-direction: column }
.tooltip > img, .walkthrough > img { inline-size: 100%; aspect-ratio: 16 / 9; border-radius: var(--r) var(--r) 0 0 }
.walkthrough { inline-size: 22em }
.mid { inset: 0; margin: auto; block-size: fit-content }
.at::before { content: ""; position: absolute; inset-block: -7px auto; left: var(--x); inline-size: 12px; block-size: 12px; rotate: 45deg;
  translate: -50%; background: var(--s); border: 1px solid var(--l); border-width: 1px 0 0 1px }
.over::before { inset-block: auto -7px; border-width: 0 1px 1px 0 }
.ring { position: fixed; z-index: var(--journey-z, 2147483000); pointer-events: none; border: 3px solid var(--a); border-radius: 8px }
.n { font-size: .8125em; margin-inline-end: auto }
.area { position: relative; display: grid; gap: 1em; align-content: center; min-block-size: 9em; padding: 1.25em; text-align: center;
  border: 1px dashed var(--m); border-radius: max(2px, calc(var(--r) - 4px)); overflow: hidden }
.area p { color: var(--t); font-size: 1.0625em }
canvas { position: absolute; inset: 0; inline-size: 100%; block-size: 100%; touch-action: none; cursor: grab }
.off { display: none }
.bar { display: flex; gap: .25em; block-size: .625em; margin-block: .25em }
.bar i { flex: 1; border: 1px solid var(--m); border-radius: 9px }
.bar .on { background: var(--a); border-color: var(--a) }
@media (max-width: 40em) { .banner .b { grid-template-columns: 1fr; gap: .5em; padding-inline-end: 1.25em } .banner .w { padding-inline-end: 2em }
  .banner > img { display: none } }
@media (prefers-reduced-motion: no-preference) {
  .p { animation: in .2s ease-out } @keyframes in { from { opacity: 0; translate: 0 8px } }
  .off { display: block; opacity: 0; pointer-events: none; transition: opacity .3s } }
@media (forced-colors: active) { .f { border-color: ButtonText } .bar .on { forced-color-adjust: none; background: Highlight } }
`

const held = new Map() // decisions that this tab has, with what gives each back
let sheet // of all surfaces
let open = null // the surface of this page: there is one at a time

const warn = (error) => console.warn('Journey Bandit:', error?.message ?? error)

/** What `act` gives, now or later; null and one warning if it fails. */
function safely(act) {
  const failed = (error) => (warn(error), null)
  try {
    const given = act()
    return given instanceof Promise ? given.catch(failed) : given
  } catch (error) {
    return failed(error)
  }
}

const uuid = () =>
  '10000000-1000-4000-8000-100000000000'.replace(/[018]/g, (c) =>
    (c ^ (crypto.getRandomValues(new Uint8Array(1))[0] & (15 >> (c / 4)))).toString(16))

const sleep = (ms) => new Promise((done) => setTimeout(done, ms))
const bytes = (text) => new TextEncoder().encode(text).length
const passing = (status) => status >= 500 || [408, 425, 429].includes(status)

/** Milliseconds before try number `n`: what the service asks for, or twice as long each time; with jitter. */
const backoff = (n, reply, first) => {
  const asked = 1000 * Number(reply?.headers.get('Retry-After'))
  return asked > 0 ? asked + Math.random() * 500 : Math.min(60_000, first * 2 ** n) * (0.5 + Math.random() / 2)
}

/** `act` while no other tab does the same, where the browser can say so. */
async function alone(name, act) {
  let began = false
  const run = () => ((began = true), act())
  try {
    return await navigator.locks.request(name, run)
  } catch (error) {
    if (began) throw error
    return run() // no locks here: a page without TLS
  }
}

/** Whether this tab has the decision: another may show it. It is held until `release`, or until the page ends. */
function hold(id) {
  return new Promise((done) => {
    if (held.has(id) || !navigator.locks) return done(true)
    const taken = (lock) => {
      done(Boolean(lock))
      return lock && new Promise((free) => held.set(id, free))
    }
    navigator.locks.request(`journey-bandit:${id}`, { ifAvailable: true }, taken).catch(() => done(true))
  })
}

function release(id) {
  held.get(id)?.()
  held.delete(id)
}

/** Entries of one key: in localStorage, and in memory where there is none or it is full. One entry an item, so that tabs
 * never overwrite each other's. */
class Shelf {
  #memory = new Map()
  constructor(area, prefix) {
    this.area = area
    this.prefix = prefix
  }
  get(name) {
    try {
      return JSON.parse(this.#memory.get(name) ?? this.area?.getItem(this.prefix + name) ?? 'null')
    } catch {
      return null
    }
  }
  set(name, value) {
    const text = JSON.stringify(value)
    try {
      this.area.setItem(this.prefix + name, text)
    } catch {
      this.#memory.set(name, text)
    }
  }
  delete(name) {
    this.#memory.delete(name)
    try {
      this.area?.removeItem(this.prefix + name)
    } catch {}
  }
  /** Names that begin so, in order. */
  names(begin) {
    const found = [...this.#memory.keys()]
    try {
      for (const key of Object.keys(this.area ?? {})) if (key.startsWith(this.prefix)) found.push(key.slice(this.prefix.length))
    } catch {}
    return found.filter((name) => name.startsWith(begin)).sort()
  }
}

/** Calls `done` once `element`, or without one the page alone, was visible for a second without a break. Gives what ends it. */
function watch(element, done) {
  let timer = 0
  let inside = !element
  const check = () => {
    const visible = inside && document.visibilityState === 'visible'
    if (visible) timer ||= setTimeout(() => (stop(), done()), 1000)
    else timer = clearTimeout(timer) ?? 0
  }
  const observer = element && new IntersectionObserver((entries) => {
    const { intersectionRatio, intersectionRect: part, rootBounds } = entries.at(-1)
    const view = rootBounds ?? { width: innerWidth, height: innerHeight }
    inside = intersectionRatio >= 0.5 || part.width * part.height >= 0.5 * view.width * view.height
    check()
  }, { threshold: Array.from({ length: 21 }, (_, i) => i / 20) })
  const stop = () => {
    clearTimeout(timer)
    observer?.disconnect()
    document.removeEventListener('visibilitychange', check)
  }
  document.addEventListener('visibilitychange', check)
  observer?.observe(element)
  check()
  return stop
}

// -- what a surface says ----------------------------------------------------------------------------------------------

const canonical = (tag) => {
  try {
    return new Intl.Locale(String(tag).replaceAll('_', '-')).toString()
  } catch {
    return 'en'
  }
}

function names(locale, own) {
  const [dismiss, decline, next, back, done, reveal] = (NAMES[locale.split('-')[0]] ?? NAMES.en).split('|')
  return { dismiss, decline, next, back, done, reveal, ...own }
}

/** Values of placeholders: texts, and functions of the service's time (ms) for what changes with it. */
function valuesOf({ nudge, evidence = {} }, locale) {
  const values = Object.create(null)
  const number = (n, more) => new Intl.NumberFormat(locale, more).format(n)
  const unit = (n, name) => number(n, { style: 'unit', unit: name, unitDisplay: 'long' })
  for (const [name, value] of Object.entries(nudge.payload ?? {}))
    if (typeof value === 'string' || Number.isFinite(value)) values[name] = typeof value === 'string' ? value : number(value)
  for (const claim of ['stock', 'deadline', 'age']) delete values[claim] // claims need evidence
  if (Number.isFinite(evidence.stock)) values.stock = number(evidence.stock)
  const ends = Date.parse(evidence.deadline)
  if (ends) values.deadline = (now) => {
    const left = Math.max(0, Math.ceil((ends - now) / 1000))
    const clock = [left / 3600 % 24, left / 60 % 60, left % 60].map((n) => number(Math.floor(n), { minimumIntegerDigits: 2 }))
    const days = Math.floor(left / 86_400)
    return (days ? unit(days, 'day') + ' ' : '') + clock.join(':')
  }
  const looked = Date.parse(evidence.as_of)
  if (looked) values.age = (now) => {
    const minutes = Math.max(1, Math.ceil((now - looked) / 60_000)) // never less than it is
    if (minutes < 60) return unit(minutes, 'minute')
    return minutes < 1440 ? unit(Math.floor(minutes / 60), 'hour') : unit(Math.floor(minutes / 1440), 'day')
  }
  return values
}

/** Parts of a text: strings, and functions of time. */
const parts = (text, values) => String(text ?? '').split(/\{([^{}]*)\}/).map((part, i) => {
  if (i % 2 && !(part in values)) throw Error(`there is no value for {${part}}`)
  return i % 2 ? values[part] : part
})

/** Where a link leads: https, this origin, or a path of it. Anything else is an error. */
function safeLink(link) {
  const base = self.origin === 'null' ? document.baseURI : self.origin
  const url = new URL(link, base)
  const own = url.origin === new URL(base).origin
  if (/^https?:\/\//i.test(link) ? url.protocol === 'https:' || own : link[0] === '/' && own) return url.href
  throw Error('a link leads to https:// or to a path of this site')
}

function safeImage(image, service) {
  if (/^\/(?![/\\])/.test(image)) return service + image
  if (/^https:\/\//i.test(image)) return image
  throw Error('an image is https:// or a path of the service')
}

// -- how it looks -----------------------------------------------------------------------------------------------------

const el = (tag, attributes, ...children) => {
  const node = document.createElement(tag)
  for (const [name, value] of Object.entries(attributes ?? {})) node.setAttribute(name, value)
  node.append(...children)
  return node
}

const find = (anchor) => {
  const found = typeof anchor === 'string' ? (anchor ? document.querySelector(anchor) : null) : anchor
  return found?.getClientRects().length ? found : null
}

/** A node with the text; what changes with time is added to `live` and brought up to date there. */
function write(node, text, { values, now, live }) {
  node.dir = 'auto'
  node.replaceChildren(...parts(text, values).map((part) => {
    if (typeof part === 'string') return part
    const place = el('span', part === values.deadline && { role: 'timer' })
    const tick = () => place.textContent === part(now()) || (place.textContent = part(now()))
    tick()
    live.push(tick)
    return place
  }))
  return node
}

/** Puts the panel below or above its anchor, with the arrow on it. */
function place(panel, anchor, ring) {
  const at = anchor.getBoundingClientRect()
  const { offsetWidth: wide, offsetHeight: high } = panel
  const middle = at.left + at.width / 2
  const left = Math.max(8, Math.min(middle - wide / 2, document.documentElement.clientWidth - wide - 8))
  const over = at.bottom + high + 12 > innerHeight && at.top > high + 12
  const set = (node, ...pairs) => pairs.forEach(([name, px]) => node.style.setProperty(name, `${px}px`))
  set(panel, ['left', left], ['top', over ? at.top - high - 12 : at.bottom + 12], ['--x', Math.max(18, Math.min(middle - left, wide - 18))])
  panel.classList.toggle('over', over)
  if (ring) set(ring, ['left', at.left - 6], ['top', at.top - 6], ['width', at.width + 12], ['height', at.height + 12])
}

/** The card under a cover, which is scratched off with a pointer or lifted by a button. */
function cover(panel, area, controls, name) {
  const canvas = el('canvas', { 'aria-hidden': 'true' })
  const button = el('button', { type: 'button', class: 'q', part: 'reveal' }, name)
  const seen = new Set()
  const reveal = () => {
    const had = button.matches(':focus')
    area.inert = false
    canvas.className = 'off'
    button.remove()
    if (had) area.focus({ preventScroll: true })
  }
  area.inert = true
  area.tabIndex = -1
  button.onclick = reveal
  controls.prepend(button)
  const box = el('div', { class: 'box' }, area, canvas)
  return { box, paint() {
    const { offsetWidth: wide, offsetHeight: high } = area
    canvas.width = wide
    canvas.height = high
    const pen = canvas.getContext('2d')
    const style = getComputedStyle(panel)
    pen.fillStyle = style.getPropertyValue('--a')
    pen.fillRect(0, 0, wide, high)
    pen.strokeStyle = style.getPropertyValue('--o')
    pen.globalAlpha = 0.16
    pen.lineWidth = 10
    for (let x = -high; x < wide; x += 28) pen.stroke(new Path2D(`M${x} ${high}L${x + high} 0`))
    pen.globalAlpha = 1
    pen.globalCompositeOperation = 'destination-out'
    pen.lineWidth = 40
    pen.lineCap = pen.lineJoin = 'round'
    let last
    canvas.onpointerdown = (event) => (last = [event.offsetX, event.offsetY])
    canvas.onpointerup = canvas.onpointerleave = () => (last = null)
    canvas.onpointermove = ({ offsetX: x, offsetY: y }) => {
      if (!last) return
      pen.stroke(new Path2D(`M${last}L${x} ${y}`))
      last = [x, y]
      seen.add(`${Math.floor(x / 32)} ${Math.floor(y / 32)}`)
      if (seen.size * 1024 > wide * high * 0.4) reveal()
    }
  } }
}

/** How far a streak is, as a bar with its numbers. */
function streak(done, of, locale) {
  const [n, most] = [done, of].map((value) => new Intl.NumberFormat(locale).format(value))
  const bar = el('div', { class: 'bar', role: 'progressbar', 'aria-valuemin': 0, 'aria-valuemax': of, 'aria-valuenow': done,
    'aria-valuetext': `${n} / ${most}`, 'aria-labelledby': 'h' })
  const cells = Math.min(of, 14)
  for (let i = 1; i <= cells; i++) bar.append(el('i', { class: i / cells <= done / of ? 'on' : '' }))
  return [bar, el('p', { 'aria-hidden': 'true' }, `${n} / ${most}`)]
}

/**
 * The surface of a nudge, not yet in the page: `root`, and in its shadow the `panel`. `press(kind, event)` is called when
 * the user answers. `shown` is called once it is in the page, `update` when something may have moved or time has passed.
 */
function draw(view, press) {
  const { shape, content, locale, dir, labels, image, link, anchor, progress, of, edge } = view
  const modal = MODAL.includes(shape)
  const inline = shape === 'inline_widget' || (shape === 'progress_streak' && anchor)
  const role = { toast: 'status', banner: 'region', inline_widget: 'region', progress_streak: 'region' }[shape] ?? 'dialog'
  const root = el('journey-nudge', { lang: locale, dir })
  const panel = el(modal ? 'dialog' : 'section', { class: `p ${shape} ${inline ? 'inline' : edge}`, part: 'surface', role,
    'aria-labelledby': 'h', tabindex: -1 })
  if (role === 'status') panel.setAttribute('aria-atomic', 'false') // or the countdown would be read out each second
  const button = (kind, part, look, name) => {
    const node = kind === 'clicked' && link ? el('a', { href: link }) : el('button', { type: 'button' })
    node.part = part
    node.className = look
    node.onclick = (event) => press(kind, event)
    return kind === 'clicked' ? write(node, name, view) : (node.textContent = name, node)
  }
  const title = write(el('h2', { id: 'h' }), content.title, view)
  const text = write(el('p'), content.text, view)
  const words = el('div', { class: 'w' }, title, ...(content.text ? [text] : []))
  const controls = el('div', { class: 'c' })
  const body = el('div', { class: 'b' }, words, controls)
  const action = content.button ? [button('clicked', 'action', 'f', content.button)] : []
  const dismiss = button('dismissed', 'dismiss', '', '')
  dismiss.setAttribute('aria-label', labels.dismiss)
  let shown = () => {}
  let update = () => {}
  let ring = null
  const follow = (target) => {
    panel.classList.toggle('at', Boolean(target))
    panel.classList.toggle('mid', !target)
    if (ring) ring.hidden = !target
    update = () => target?.isConnected && place(panel, target, ring)
    if (!target) for (const name of ['left', 'top']) panel.style.removeProperty(name)
    update()
  }
  if (shape === 'scratch_card') {
    const area = el('div', { class: 'area' }, ...(content.text ? [text] : []), ...action)
    const { box, paint } = cover(panel, area, controls, labels.reveal)
    words.after(box)
    shown = paint
  } else if (shape === 'walkthrough') {
    shown = steps(view, { title, text, words, controls, action, button, follow })
    ring = el('div', { class: 'ring' })
  } else controls.append(...action)
  if (shape === 'tooltip') shown = () => follow(anchor)
  if (shape === 'progress_streak' && progress !== undefined) words.after(...streak(progress, of, locale))
  controls.append(button('declined', 'decline', '', labels.decline))
  if (image) {
    const picture = el('img', { alt: parts(content.alt, view.values).map((part) => part.call ? part(view.now()) : part).join(''),
      decoding: 'async', referrerpolicy: 'no-referrer' })
    picture.onerror = () => picture.remove()
    picture.src = image
    panel.append(picture)
  }
  panel.append(body, dismiss)
  sheet ??= new CSSStyleSheet()
  if (!sheet.cssRules.length) sheet.replaceSync(CSS)
  const shadow = root.attachShadow({ mode: 'open' })
  shadow.adoptedStyleSheets = [sheet]
  shadow.append(...(ring ? [ring] : []), panel)
  return { root, panel, modal, inline, shown, update: () => update() }
}

/** Steps of a walkthrough, the title and text before them; gives what shows the first. */
function steps(view, { title, text, words, controls, action, button, follow }) {
  const { content, labels, anchor, locale } = view
  const all = [{ title: content.title, text: content.text, anchor }, ...(content.steps ?? [])]
  for (const step of all) parts(step.title + step.text, view.values) // each is checked before the first is shown
  const [count, back, next] = [el('p', { class: 'n', role: 'status' }), ...['back', 'next'].map((name) =>
    el('button', { type: 'button', class: name === 'next' ? 'f' : 'q', part: name }, labels[name]))]
  const done = action[0] ?? button('clicked', 'action', 'f', labels.done)
  const number = new Intl.NumberFormat(locale)
  const still = matchMedia('(prefers-reduced-motion: reduce)').matches
  let at = 0
  const go = (to, first) => {
    if (to < 0 || to >= all.length) return
    const had = [next, done, back].some((node) => node.matches(':focus'))
    at = to
    const step = all[at]
    view.live.length = 0
    write(title, step.title, view)
    write(text, step.text, view)
    text.hidden = !step.text
    words.append(text)
    count.textContent = `${number.format(at + 1)} / ${number.format(all.length)}`
    back.hidden = !at
    const last = at === all.length - 1
    ;(last ? next : done).replaceWith(last ? done : next)
    const target = find(step.anchor)
    if (!first) target?.scrollIntoView({ block: 'center', behavior: still ? 'auto' : 'smooth' })
    const { top, bottom } = target?.getBoundingClientRect() ?? {}
    follow(first && !(bottom > 0 && top < innerHeight) ? null : target)
    if (had) (last ? done : next).focus({ preventScroll: true })
  }
  back.onclick = () => go(at - 1)
  next.onclick = () => go(at + 1)
  controls.append(count, back, all.length > 1 ? next : done)
  view.keys = { ArrowRight: () => go(at + (view.dir === 'rtl' ? -1 : 1)), ArrowLeft: () => go(at - (view.dir === 'rtl' ? -1 : 1)) }
  return () => go(0, true)
}

// -- the module -------------------------------------------------------------------------------------------------------

export class Journey {
  #key = ''
  #service = ''
  #options = {}
  #silent = false
  #user = null
  #tokens = new Map() // of each user: {source, text}
  #blocked = new Set() // users whose token the service refused
  #shelf = new Shelf(null, '')
  #made = new WeakMap() // decisions of this object: {user, path, shift}
  #sending = null
  #failures = 0
  #single = 0 // items to be sent one by one: the service refused them together
  #wake = () => {}
  #soon = 0
  #count = 0

  constructor(options) {
    safely(() => {
      const { key, service, silent, storage } = options
      if (!silent && (typeof key !== 'string' || !key)) throw Error('new Journey({key}) needs a publishable key')
      this.#options = options
      this.#silent = Boolean(silent)
      this.#key = key ?? ''
      this.#service = String(service ?? import.meta.url.split('/v1/browser/')[0]).replace(/\/+$/, '')
      if (silent) return
      let area = storage
      try {
        if (storage === undefined) area = localStorage
      } catch {} // refused: this page has memory only
      this.#shelf = new Shelf(area, `journey-bandit:${key}:`)
      addEventListener('online', () => this.#wake())
      addEventListener('pagehide', () => this.#beacon())
      document.addEventListener('visibilitychange', () => document.visibilityState === 'hidden' && this.#beacon())
    })
  }

  /** Says who the user is from now on. */
  identify(userId, options) {
    safely(() => {
      const user = typeof userId === 'number' ? String(userId) : userId
      if (typeof user !== 'string' || !user) throw Error('identify(userId) needs the id of a user')
      const source = options?.token ?? this.#options.token
      if (user !== this.#user) {
        if (this.#user !== null) this.close()
        const former = this.#tokens.get(this.#user)
        if (former) former.source = null // it may give another's from now on
      }
      this.#user = user
      if (source) this.#tokens.set(user, { source, text: typeof source === 'string' ? source : null })
      this.#blocked.delete(user)
      this.#later(0)
    })
  }

  /** Reports something that the user did. */
  track(event, properties) {
    safely(() => {
      if (typeof event !== 'string' || !event || event.length > 256) throw Error('track(event) needs a name of 1 to 256 characters')
      if (this.#user === null) throw Error('identify(userId) comes before track')
      this.#put({ user: this.#user, id: uuid(), event, properties: properties ?? {} })
      this.#later(500)
    })
  }

  /** The decision for the user at this moment; null if it is late, refused or impossible. */
  decide(options) {
    return Promise.resolve(safely(() => this.#decide(options ?? {})))
  }

  /** Shows the nudge of a decision; null if nothing is shown. */
  show(decision, options) {
    if (!decision) return null
    const surface = safely(() => this.#show(decision, options ?? {}))
    if (!surface) safely(() => release(decision.decision_id))
    return surface
  }

  /** Decides, then shows. */
  async nudge(options) {
    return this.show(await this.decide(options), options)
  }

  /** Closes the surface of the page, if there is one. Nothing is reported. */
  close() {
    safely(() => open?.close())
  }

  // -- the queue ----------------------------------------------------------------------------------------------------

  #put(item) {
    if (this.#silent) return
    const text = JSON.stringify(item)
    if (bytes(text) > BYTES) throw Error(`${item.event} is too large to be sent`)
    const waiting = this.#shelf.names('q/')
    for (const name of waiting.slice(0, Math.max(0, waiting.length + 1 - MOST))) this.#shelf.delete(name)
    const at = Date.now()
    const number = String(this.#count++).padStart(6, '0')
    this.#shelf.set(`q/${String(at).padStart(15, '0')}-${number}-${item.id}`, { ...item, at })
  }

  #later(ms) {
    if (ms === 0) return this.#flush()
    this.#soon ||= setTimeout(() => ((this.#soon = 0), this.#flush()), ms)
  }

  /** What waits, in order, as bodies of one user and one path. A user whose token is not known here has to wait. */
  *#batches(most) {
    const signed = this.#tokens.has(this.#user)
    let batch = null
    let size = 0
    for (const name of this.#shelf.names('q/')) {
      const item = this.#shelf.get(name)
      const since = Date.now() - item?.at
      if (!(since < MONTH)) {
        this.#shelf.delete(name)
        continue
      }
      const { user, id, event, properties } = item
      if (this.#blocked.has(user) || (signed && !this.#tokens.has(user))) continue
      const sent = event && { event_id: id, event, properties, ago: Math.max(0, Math.floor(since / 1000)) }
      const more = sent ? bytes(JSON.stringify(sent)) : 0
      if (batch && (user !== batch.user || !sent || !batch.more.events || batch.names.length >= most || size + more > BYTES)) {
        yield batch
        batch = null
      }
      batch ??= ((size = 0), { user, names: [], path: sent ? 'events' : 'activations', more: sent ? { events: [] } : { decision_id: id } })
      batch.names.push(name)
      if (sent) batch.more.events.push(sent)
      size += more
    }
    if (batch) yield batch
  }

  /** Sends what waits; over when nothing is left that can be sent. */
  #flush() {
    if (this.#silent || this.#user === null) return Promise.resolve()
    return (this.#sending ??= this.#drain().catch(warn).finally(() => {
      this.#sending = null
      if (!this.#batches(BATCH).next().done) this.#later(500) // it came while this ended
    }))
  }

  async #drain() {
    for (;;) {
      const wait = await alone(`journey-bandit:${this.#key}`, async () => {
        const { value: batch } = this.#batches(this.#single ? 1 : BATCH).next()
        return batch ? this.#send(batch) : -1
      })
      if (wait < 0) return
      if (wait) await Promise.race([sleep(wait), new Promise((done) => (this.#wake = done))])
    }
  }

  /** Milliseconds to wait before the next batch. */
  async #send({ user, path, names: items, more }) {
    let reply = null
    try {
      reply = await this.#post(path, user, more, AbortSignal.timeout(10_000))
      const { status } = reply
      if (status === 401) {
        this.#blocked.add(user)
        return 0
      }
      if (passing(status)) throw Error(status)
      this.#single = Math.max(0, this.#single - 1)
      if (!reply.ok && items.length > 1) {
        this.#single = items.length
        return 0
      }
      const told = reply.ok && more.events ? (await reply.json()).events : [{ status, problem: reply.ok ? null : await detail(reply) }]
      let left = false
      items.forEach((name, i) => {
        if (passing(told[i].status)) return (left = true)
        if (told[i].status >= 400) warn(`refused: ${told[i].problem?.detail ?? told[i].status}`)
        this.#shelf.delete(name)
      })
      if (left) throw Error('busy')
      this.#failures = 0
      return 0
    } catch {
      return backoff(this.#failures++, reply, 1000)
    }
  }

  /** What is left, when nobody may come back to send it. It stays until it is acknowledged: the ids make repeats harmless. */
  #beacon() {
    safely(() => {
      if (this.#user === null) return
      for (const { user, path, more } of this.#batches(BATCH)) {
        const known = this.#tokens.get(user)
        if (known && known.text === null) continue
        const body = JSON.stringify({ key: this.#key, token: known?.text ?? '', user_id: user, ...more })
        if (!navigator.sendBeacon(`${this.#service}/v1/browser/${path}`, body)) return
      }
    })
  }

  /** The reply to a request of a user. After a 401 the page is asked for a token once more. */
  async #post(path, user, more, signal) {
    for (let again = false; ; again = true) {
      const known = this.#tokens.get(user)
      const ask = typeof known?.source === 'function' && (again || known.text === null)
      if (ask) known.text = String(await Promise.race([known.source(), sleep(10_000).then(() => Promise.reject(Error('no token')))]))
      const body = JSON.stringify({ key: this.#key, token: known?.text ?? '', user_id: user, ...more })
      const reply = await fetch(`${this.#service}/v1/browser/${path}`, { method: 'POST', body, signal, credentials: 'omit' })
      if (reply.status !== 401 || again || typeof known?.source !== 'function') return reply
    }
  }

  // -- decisions ----------------------------------------------------------------------------------------------------

  get #locale() {
    return canonical(this.#options.locale || document.documentElement.lang || navigator.language)
  }

  async #decide({ stage, context, consent, evidence }) {
    if (this.#silent) return null
    const user = this.#user
    if (user === null) throw Error('identify(userId) comes before decide')
    const path = location.pathname
    const began = performance.now()
    const patience = this.#options.patience ?? 2000
    const formats = this.#options.formats ?? FORMATS
    const asked = JSON.stringify({ decision_id: (this.#options.newId ?? uuid)(), page: path, formats, locale: this.#locale, stage, context, consent })
    const stop = new AbortController()
    const over = () => stop.signal.aborted || performance.now() - began > patience || location.pathname !== path || this.#user !== user
    const work = async () => {
      this.#blocked.delete(user)
      const [signed] = await Promise.all([typeof evidence === 'function' ? evidence() : evidence, this.#flush()])
      const reply = await this.#ask(user, { ...JSON.parse(asked), evidence: signed ?? undefined }, stop.signal)
      if (!reply || over()) return null
      this.#tell('decided', reply)
      this.#made.set(reply, { user, path, shift: Date.parse(reply.now) - Date.now() })
      if (reply.nudge.id === 'none') this.#none(reply)
      else if (!(await hold(reply.decision_id))) return null
      else if (over()) return release(reply.decision_id), null
      return reply
    }
    let timer
    const late = new Promise((done) => (timer = setTimeout(() => (stop.abort(), done(null)), patience)))
    return Promise.race([work(), late]).finally(() => clearTimeout(timer))
  }

  /** The service's decision, asked for again under the same id while there is patience. */
  async #ask(user, asked, signal) {
    for (let n = 0; !signal.aborted && !this.#blocked.has(user); n++) {
      let reply = null
      try {
        reply = await this.#post('decisions', user, asked, signal)
        if (reply.ok) {
          const decision = await reply.json()
          performance.mark('journey:reply')
          return decision
        }
      } catch {} // no network, or no token
      if (reply?.status === 401) this.#blocked.add(user)
      else if (reply && !passing(reply.status)) return warn((await detail(reply))?.detail ?? reply.status), null
      else await sleep(backoff(n, reply, 200))
    }
    return null
  }

  /** No nudge, which counts like one: once the page was visible for a second. */
  #none(decision) {
    if (open || decision.moment === null) return
    const { path, user } = this.#made.get(decision)
    const stop = watch(null, () => location.pathname === path && this.#user === user && this.#seen(decision))
    addEventListener('pagehide', stop, { once: true })
  }

  #remember(id, what) {
    for (const name of this.#shelf.names('d/').map((name) => [this.#shelf.get(name)?.at ?? 0, name]).sort().slice(0, -MOST)) this.#shelf.delete(name[1])
    this.#shelf.set(`d/${id}`, { ...this.#shelf.get(`d/${id}`), ...what, at: Date.now() })
  }

  #seen(decision) {
    const id = decision.decision_id
    if (this.#shelf.get(`d/${id}`)?.seen) return
    this.#remember(id, { seen: 1 })
    this.#put({ user: this.#made.get(decision)?.user ?? this.#user, id })
    this.#tell('activated', decision)
    this.#later(0)
  }

  #tell(type, decision) {
    safely(() => this.#options.onChange?.({ type, decision }))
  }

  // -- surfaces -----------------------------------------------------------------------------------------------------

  #show(decision, { anchor, host, progress, navigate }) {
    const { decision_id: id, nudge, evidence } = decision
    if (open && !open.element.isConnected) open.close()
    if (open || document.querySelector('journey-nudge') || nudge.id === 'none') return null
    const shape = nudge.format === 'gamified' ? 'scratch_card' : nudge.format
    const made = this.#made.get(decision)
    const path = location.pathname
    const shift = made?.shift ?? ((Date.parse(decision.now) || Date.now()) - Date.now())
    const now = () => Date.now() + shift
    if (!(this.#options.formats ?? FORMATS).includes(nudge.format) || this.#shelf.get(`d/${id}`)?.closed) return null
    if ((made && (made.path !== path || made.user !== this.#user)) || Date.parse(decision.expires_at) <= now()) return null
    const content = decision.content ?? nudge.payload
    if (!content.title) throw Error(`nudge ${nudge.id} has no title`)
    const ends = Date.parse(evidence?.deadline)
    if (ends <= now()) return null
    const target = find(anchor ?? content.anchor)
    if (!target && ['inline_widget', 'tooltip'].includes(shape)) return null
    const locale = canonical(decision.content?.locale || this.#locale)
    const rtl = RTL.test(new Intl.Locale(locale).maximize().script)
    const of = Number(nudge.payload?.of ?? nudge.payload?.days)
    const steady = Number.isInteger(progress) && of > 0 && progress >= 0
    const view = {
      shape, content, locale, now, anchor: target, of, live: [], keys: {},
      values: valuesOf(decision, locale),
      dir: rtl ? 'rtl' : getComputedStyle(document.documentElement).direction,
      labels: names(locale, this.#options.labels),
      image: content.image && safeImage(content.image, this.#service),
      link: content.link && safeLink(content.link),
      progress: steady ? Math.min(progress, of) : undefined,
      edge: nudge.payload?.position === 'top' ? 'top' : '',
    }
    let answered = false
    const press = (kind, event) => {
      if (answered) return event?.preventDefault()
      answered = true
      this.#remember(id, { closed: 1 })
      const user = made?.user ?? this.#user
      const properties = { nudge: `${decision.stage}.${nudge.id}`, decision: id }
      if (user !== null) this.#put({ user, id: `${id}:${kind}`, event: EVENTS[kind], properties })
      this.#later(0)
      surface.close()
      this.#tell(kind, decision)
      const plain = event?.button === 0 && !(event.metaKey || event.ctrlKey || event.shiftKey || event.altKey)
      if (kind === 'clicked' && view.link && navigate && plain) {
        event.preventDefault()
        safely(() => navigate(view.link))
      }
    }
    const { root, panel, modal, inline, shown, update } = draw(view, press)
    root.dataset.format = nudge.format
    root.dataset.nudge = nudge.id
    const before = document.activeElement
    const gone = new AbortController()
    const tick = () => {
      if (location.pathname !== path || !root.isConnected || ends <= now()) return surface.close()
      for (const one of view.live) one()
      update()
    }
    const surface = {
      element: root,
      close: () => {
        if (open !== surface) return
        open = null
        gone.abort()
        clearInterval(timer)
        stop()
        const had = root.matches(':focus-within') || modal
        root.remove()
        release(id)
        if (had && before?.isConnected) before.focus({ preventScroll: true })
        this.#tell('closed', decision)
      },
    }
    const on = (target, type, act, more) => target.addEventListener(type, act, { signal: gone.signal, ...more })
    let timer = 0
    let stop = () => {}
    try {
      ;(inline ? target : (host ?? document.body)).append(root)
      if (inline) root.style.setProperty('display', 'block')
      if (modal) panel.showModal()
      shown()
      if (modal) panel.focus({ preventScroll: true })
    } catch (error) {
      root.remove()
      throw error
    }
    open = surface
    performance.mark('journey:shown')
    timer = setInterval(() => safely(tick), 250)
    stop = watch(panel, () => this.#seen(decision))
    on(panel, 'cancel', (event) => (event.preventDefault(), press('dismissed')))
    on(panel, 'close', () => press('dismissed'))
    on(panel, 'click', (event) => modal && event.target === panel && press('dismissed')) // the backdrop
    on(['tooltip', 'walkthrough'].includes(shape) ? document : panel, 'keydown', (event) => {
      if (event.key === 'Escape' && !event.defaultPrevented && !modal) press('dismissed')
    })
    on(panel, 'keydown', (event) => {
      view.keys[event.key]?.()
      if (modal && event.key === 'Tab') keep(panel, event)
    })
    for (const type of ['scroll', 'resize']) on(window, type, update, { capture: true, passive: true })
    on(window, 'popstate', tick)
    if (window.navigation) on(window.navigation, 'currententrychange', tick)
    this.#tell('shown', decision)
    return { element: root, close: () => safely(surface.close) }
  }
}

/** The problem that a refused request tells, where it tells one. */
const detail = (reply) => reply.json().catch(() => null)

/** Keeps the focus in a dialog. */
function keep(panel, event) {
  const all = [...panel.querySelectorAll('a, button')].filter((node) => !node.closest('[inert]'))
  const now = panel.getRootNode().activeElement
  const edge = event.shiftKey ? all[0] : all.at(-1)
  if (now !== edge && all.includes(now)) return
  event.preventDefault()
  all.at(event.shiftKey ? -1 : 0).focus()
}
