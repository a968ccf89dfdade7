// The panel: what the service knows of a person and a decision, and what it did. Everything is read from its API.

import { arrived } from './arrivals.js'
import { ask, h } from './dom.js'
import { about, learned, outcomes, probabilities, whoAndWhere } from './panel-parts.js'
import { lasting, short } from './words.js'

const name = location.pathname.split('/')[2]
const { story } = await import(`/files/${name}/story.js`)
const app = await ask(`/panel/${name}/app`)
const frame = document.getElementById('app')
const panel = document.getElementById('panel')
const inside = document.getElementById('inside')
const handle = document.getElementById('handle')

let person // of this moment: {id, label, ids}
let made = [] // decisions of this person at a moment, in order: {decision, receipt, again, before, signs}
let past // the last decision of the person before
let known // what the service said last
let asking // the question under way
let anew // the one after it
let pressed = false // a button of the panel, now
let stale = false // the panel waits to be drawn

// -- what the page tells ----------------------------------------------------------------------------------------------

window.journeyPanel = {
  /** Id of the next decision. Before the first moment of a story's person it is one whose draw is the story's nudge. */
  newId: () => (made.length ? null : person.ids.shift()) ?? crypto.randomUUID(),
  onChange({ type, decision }) {
    let entry = made.find((one) => one.decision.decision_id === decision.decision_id)
    if (!entry && decision.moment) {
      entry = { decision, who: person.id, first: !made.length, signs: new Set(), before: known?.policies?.[decision.stage] }
      made.push(entry)
    }
    entry?.signs.add(type)
    refresh()
  },
}

/** Refreshes whenever the page has had an answer from somewhere. */
function watch() {
  const view = frame.contentWindow
  let soon = 0
  const observer = new view.PerformanceObserver((list) => {
    if (list.getEntries().every(({ initiatorType }) => !['fetch', 'beacon', 'other'].includes(initiatorType))) return
    clearTimeout(soon)
    soon = setTimeout(refresh, 120)
  })
  observer.observe({ type: 'resource', buffered: true })
}

// -- what is done here ------------------------------------------------------------------------------------------------

async function meet(storyOf) {
  const who = await ask(`/panel/${name}/person`, { story: storyOf?.person ?? null })
  person = { id: who.user_id, label: storyOf?.label ?? 'A person whom nobody chose', ids: who.decision_ids, story: storyOf }
  past = made.at(-1) ?? past
  made = []
  known = undefined
  frame.src = app.opens
  await refresh()
}

async function pass(seconds) {
  await arrived(person.id)
  await ask(`/panel/${name}/clock`, { seconds })
  frame.contentWindow.dispatchEvent(new CustomEvent('time-passed', { detail: seconds }))
  await refresh()
}

/** Reads and shows what is known now. One question at a time, and one more after it: answers are shown at last however
 * often the page has news, and however slow they are. */
function refresh() {
  if (asking) return (anew ??= asking.finally(() => ((anew = undefined), refresh())))
  return (asking = look().finally(() => (asking = undefined)))
}

async function look() {
  const who = person
  const last = made.at(-1)
  const told = await ask(`/panel/${name}/state?decision=${last?.decision.decision_id ?? ''}`).catch(ended)
  if (!told || who !== person) return // an answer about the person before
  if (last && told.receipt) Object.assign(last, { receipt: told.receipt, again: told.again, after: told.policy })
  known = { ...told, policies: { ...known?.policies, [told.policy.stage]: told.policy } }
  if (last) last.before ??= told.policy
  draw()
}

function ended(error) {
  inside.replaceChildren(h('p', { role: 'alert' }, `The panel had no answer (${error.message}). Is journey-bandit try still running? Start it, and load this page again.`))
}

// -- what is shown ----------------------------------------------------------------------------------------------------

const TIMES = [60, 600, 3 * 3600, 86_400, 8 * 86_400]

function steps() {
  const first = made[0]
  const seen = (one) => Boolean(one?.receipt?.outcomes.some(({ kind }) => kind === 'activation'))
  const rewarded = Boolean(first?.receipt?.outcomes.some(({ kind, late }) => kind === 'reward' && !late))
  const window_ = app.stages[app.stage].window_seconds
  const facts = { ...known, made, first, at: frame.contentWindow.location.pathname }
  return [
    ...story.before.map((step) => ({ ...step, done: step.done(facts) })),
    { text: story.look ?? 'Look at the nudge for a second', done: seen(first) },
    ...story.reward.map((step) => ({ ...step, done: step.done(facts) || rewarded })),
    { text: `The window ends (${lasting(window_)}): it is settled, and learned`, pass: window_, done: Boolean(first?.receipt?.settled) },
    ...story.again.map((step) => ({ ...step, done: step.done(facts) || made.length > 1 })),
    story.again.length > 0 && { text: 'See what this visit’s nudge was drawn from', done: made.length > 1 },
  ].filter(Boolean)
}

function guide() {
  const all = steps()
  const reached = all.findLastIndex(({ done }) => done)
  const next = all.findIndex(({ done }, i) => !done && i > reached)
  const item = ({ text, pass: seconds, go }, i) => {
    const state = i <= reached ? 'done' : i === next ? 'next' : 'later'
    return h('li', { class: state, 'aria-current': state === 'next' ? 'step' : null },
      h('span', {}, text),
      state === 'next' && seconds && h('button', { type: 'button', class: 'go', click: () => pass(seconds) }, `Let ${lasting(seconds)} pass`),
      state === 'next' && go && h('button', { type: 'button', class: 'go', click: () => (frame.src = go) }, 'Open'))
  }
  return h('section', {}, h('ol', { class: 'guide' }, all.map(item)), next < 0 && h('p', { class: 'good' }, story.end))
}

function time() {
  const now = new Intl.DateTimeFormat('en-GB', { dateStyle: 'medium', timeStyle: 'short', timeZone: 'UTC' }).format(known.now / 1000)
  const matter = steps().find(({ done, pass: seconds }) => seconds && !done)?.pass
  const offered = [...new Set([...TIMES, ...(matter ? [matter] : [])])].sort((a, b) => a - b)
  return h('section', {}, h('h2', {}, `${now} in the service`),
    h('p', { class: 'quiet' }, 'Time is driven here: a page takes one second of it.'),
    h('div', { class: 'times', role: 'group', 'aria-label': 'Let time pass' }, offered.map((seconds) =>
      h('button', { type: 'button', class: seconds === matter ? 'matters' : null, click: () => pass(seconds) }, short(seconds)))))
}

function people() {
  return h('div', { class: 'people', role: 'group', 'aria-label': 'Who it is' },
    app.stories.map((one) => h('button', { type: 'button', 'aria-pressed': String(person.story === one), click: () => meet(one) }, one.label)),
    h('button', { type: 'button', 'aria-pressed': String(!person.story), click: () => meet(null) }, 'Somebody else'))
}

/** Draws the panel anew, but not between pressing a button of it and letting go: the click would be lost. */
function draw() {
  if (pressed) return (stale = true)
  stale = false
  const entry = made.at(-1)
  const earlier = made.at(-2) ?? past
  const focus = inside.contains(document.activeElement) ? document.activeElement.textContent : ''
  const open = new Map([...inside.querySelectorAll('details')].map((one) => [one.dataset.name, one.open]))
  const parts = [
    h('header', {},
      h('h1', {}, story.title),
      h('nav', { 'aria-label': 'More' },
        h('a', { href: '/' }, 'All apps'),
        h('a', { href: `/files/${name}/nudges.js`, target: '_blank' }, 'View the code'),
        h('a', { href: app.opens, target: '_blank' }, 'Without the panel'),
        h('a', { href: `${app.service}/docs`, target: '_blank' }, 'API'))),
    guide(), time(),
    whoAndWhere(person, known, people()),
    probabilities(person, entry, earlier),
    outcomes(name, entry),
    learned(entry, known),
    about(app, known),
  ]
  inside.replaceChildren(...parts.filter(Boolean)) // some have nothing to say yet
  for (const one of inside.querySelectorAll('details')) one.open = open.get(one.dataset.name) ?? one.open
  if (focus) [...inside.querySelectorAll('button')].find((button) => button.textContent === focus)?.focus({ preventScroll: true })
}

function fold(open) {
  panel.classList.toggle('folded', !open)
  handle.setAttribute('aria-expanded', String(open))
  handle.textContent = open ? 'Hide the panel' : 'What the service knows'
}

inside.addEventListener('pointerdown', () => (pressed = true))
for (const type of ['pointerup', 'pointercancel'])
  window.addEventListener(type, () => {
    pressed = false
    if (stale) setTimeout(draw) // after the click
  })
handle.addEventListener('click', () => fold(panel.classList.contains('folded')))
frame.addEventListener('load', () => frame.contentWindow.location.href !== 'about:blank' && (watch(), refresh()))
document.title = `${app.title} · Journey Bandit`
fold(window.matchMedia('(min-width: 64em)').matches)
const wanted = new URLSearchParams(location.search).get('person')
await meet(app.stories.find((one) => one.person === wanted) ?? app.stories[0])
