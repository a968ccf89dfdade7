// One nudge in a made-up page, as the query says: stage, nudge, format, locale, scheme, dir. The reply of the service is made up.

const POINTING = ['tooltip', 'walkthrough']
const ANCHORED = ['inline_widget', 'tooltip']
const DAY = 86_400
const DONE = 2 // of a streak

const asked = Object.fromEntries(new URLSearchParams(location.search))
const root = document.documentElement
const [note, told] = [document.querySelector('aside'), document.querySelector('aside p')]
root.lang = asked.locale || 'en'
root.dir = asked.dir === 'rtl' ? 'rtl' : 'ltr'
root.dataset.scheme = asked.scheme

// A frame cannot have other colours than the browser's: the question for them is answered before it is asked.
const replace = CSSStyleSheet.prototype.replaceSync
CSSStyleSheet.prototype.replaceSync = function (css) {
  const is = asked.scheme === 'dark' ? '(min-width: 0px)' : '(max-width: 0px)'
  return replace.call(this, css.replaceAll('(prefers-color-scheme: dark)', is))
}

// journey.js says on the console why it shows nothing.
const warnings = []
const warn = console.warn
console.warn = (...words) => {
  warnings.push(words.join(' '))
  warn.apply(console, words)
}

function say(text, state) {
  told.textContent = text
  note.querySelector('button').hidden = state === 'refused'
  note.hidden = false
  root.dataset.state = state
}

function slot(selector) {
  const node = document.createElement('div')
  node.className = POINTING.includes(asked.format) ? 'field' : 'slot'
  if (node.className === 'field') {
    node.textContent = selector
    node.dir = 'ltr' // it is code
  }
  document.querySelector('.slots').append(node)
  return node
}

// The selector of an element that is there now: the declared one where a simple element can have it.
function anchored(selector, number) {
  if (!selector) return selector
  let found
  try {
    found = document.querySelector(selector)
  } catch {
    throw Error(`${selector} is no CSS selector`)
  }
  if (found) return selector
  const node = slot(selector)
  if (/^#[\w-]+$/.test(selector)) node.id = selector.slice(1)
  else if (/^\.[\w-]+$/.test(selector)) node.classList.add(selector.slice(1))
  else node.id = `preview-anchor-${number}`
  return node.id ? `#${node.id}` : selector
}

// Content with anchors that are there; none for a nudge that is drawn from its payload.
function content(one) {
  const own = one.contents[asked.locale]
  if (!own) return undefined
  const anchor = anchored(own.anchor, 0)
  return { ...own, anchor, steps: own.steps.map((step, i) => ({ ...step, anchor: anchored(step.anchor, i + 1) })) }
}

// What the service would reply now.
function reply({ stage, one, words, number }) {
  const now = Date.now()
  const at = (seconds) => new Date(now + 1000 * seconds).toISOString()
  const { stock, deadline, as_of: asOf } = one.evidence ?? {}
  const evidence = one.evidence ? { stock, deadline: deadline && at(deadline), as_of: at(asOf) } : undefined
  const nudge = { ...one.nudge, format: asked.format }
  return { decision_id: `preview-${number}`, stage, nudge, expires_at: at(DAY), now: at(0), duplicate: false, content: words, evidence }
}

// Whoever reads the page around keeps the focus where it is.
function quietly(act) {
  const frame = window.frameElement
  const page = frame?.ownerDocument
  const before = page?.activeElement
  const given = act()
  if (frame && before !== frame && page.activeElement === frame) {
    if (before && before !== page.body) before.focus({ preventScroll: true })
    else frame.blur()
  }
  return given
}

async function begin() {
  const found = await fetch('catalogue.json').then((answer) => answer.json())
  const one = found.stages.find((stage) => stage.name === asked.stage)?.nudges.find((each) => each.nudge.id === asked.nudge)
  if (!one) throw Error(`the catalogue has no nudge ${asked.nudge} at the stage ${asked.stage}`)
  document.title = `${asked.stage}.${asked.nudge}`
  document.querySelector('.app').textContent = found.title
  const { Journey } = await import('./journey.js')
  const words = content(one)
  const anchor = ANCHORED.includes(asked.format) && !words?.anchor ? slot('anchor') : undefined
  let number = 0
  const onChange = ({ type }) => ['clicked', 'dismissed', 'declined'].includes(type) && say(`It was ${type}.`, 'closed')
  const service = new URL('.', location.href).href.replace(/\/$/, '')
  const journey = new Journey({ silent: true, service, locale: asked.locale, onChange })
  const show = () => {
    const decision = reply({ stage: asked.stage, one, words, number: number++ })
    const surface = quietly(() => journey.show(decision, { anchor, progress: DONE, navigate() {} }))
    note.hidden = Boolean(surface)
    if (surface) root.dataset.state = 'shown'
    else say(`journey.js shows nothing: ${warnings.at(-1)?.replace('Journey Bandit: ', '') ?? 'it gives no reason'}.`, 'refused')
  }
  note.querySelector('button').addEventListener('click', show)
  show()
}

begin().catch((error) => say(`It cannot be shown: ${error.message}.`, 'refused'))
