// Parts of the panel, each made of what the service said.

import { h } from './dom.js'
import { lasting, percent, plain, when } from './words.js'

const part = (title, ...children) => h('section', {}, h('h2', {}, title), ...children)

function table(caption, head, rows) {
  return h('div', { class: 'wide' }, h('table', {}, h('caption', {}, caption),
    h('thead', {}, h('tr', {}, head.map((text, i) => h('th', { scope: 'col', class: i ? 'n' : null }, text)))),
    h('tbody', {}, rows.map(([first, ...cells]) =>
      h('tr', {}, h('th', { scope: 'row' }, first), cells.map((cell) => h('td', { class: 'n' }, cell)))))))
}

/** Details that stay open or shut when the panel is drawn anew. */
const more = (name, summary, ...children) => h('details', { 'data-name': name }, h('summary', {}, summary), children.flat().filter(Boolean))

/** Who it is, and what the service knows of them. */
export function whoAndWhere(person, { journey }, people) {
  const features = Object.entries(journey.features)
  return part('The person', people,
    h('p', {}, h('b', {}, person.id), ` in ${journey.stage}, visit ${journey.visits || 1}`,
      journey.abandoned > 0 && `, ${journey.abandoned} abandoned`, journey.consent.length > 0 && `, agreed to ${journey.consent.join(', ')}`),
    h('p', {}, journey.moment ? [h('b', { class: 'moment' }, journey.moment), ` because ${journey.why}`] : `No moment: ${journey.why}`),
    more('known', 'Features, events, and what is not eligible',
      h('h3', {}, 'Features, from the journey'),
      h('dl', {}, features.flatMap(([name, value]) => [h('dt', {}, name), h('dd', {}, plain(value))])),
      h('h3', {}, 'Events'),
      h('dl', {}, Object.entries(journey.events).flatMap(([name, { count }]) => [h('dt', {}, name), h('dd', {}, `${count} ×`)])),
      journey.exposures.length > 0 && [h('h3', {}, 'Shown'),
        h('dl', {}, journey.exposures.flatMap(({ stage, nudge, count }) => [h('dt', {}, nudge), h('dd', {}, `${count} ×, ${stage}`)]))],
      Object.keys(journey.excluded).length > 0 && [h('h3', {}, 'Not now, without evidence'),
        h('dl', {}, Object.entries(journey.excluded).flatMap(([arm, why]) => [h('dt', {}, arm), h('dd', {}, why)]))]))
}

/** What was drawn, from which probabilities, and why not the others. */
export function probabilities(person, entry, earlier) {
  const receipt = entry?.receipt
  if (!receipt) return part('The decision', h('p', { class: 'quiet' }, 'None yet: the page asks at each step, and the moment has not come.'))
  const arms = Object.entries(receipt.arms).filter(([arm]) => receipt.eligible.includes(arm))
  let from = 0
  const pieces = arms.map(([arm, { propensity }]) => {
    const piece = { arm, p: propensity, from }
    from += propensity
    return piece
  })
  const before = earlier?.receipt?.arms
  const row = ({ arm, p }) => h('li', { class: arm === receipt.nudge.id ? 'drawn' : null },
    h('span', { class: 'arm' }, arm, arm === receipt.nudge.id && h('em', {}, ' drawn')),
    bar(p, before?.[arm]?.propensity),
    h('span', { class: 'n' }, percent(p)))
  return part('The decision',
    h('p', {}, receipt.holdout
      ? 'This person is in the control group: no nudge, and nothing is learned from them. '
      : ['u = ', h('b', {}, receipt.u.toFixed(4)), ' hits ', h('b', {}, receipt.nudge.id), ` at ${interval(pieces, receipt.nudge.id)}`]),
    axis(pieces, receipt),
    h('ul', { class: 'bars', 'aria-label': 'Probability of each' }, pieces.map(row)),
    before && h('p', { class: 'quiet' }, `The tick in each bar is the probability at the decision before, of ${earlier.who}.`),
    Object.keys(receipt.excluded).length > 0 && [h('p', {}, 'Not, and why:'),
      h('dl', {}, Object.entries(receipt.excluded).flatMap(([arm, why]) => [h('dt', {}, arm), h('dd', {}, why)]))],
    person.story && entry.first && h('p', { class: 'quiet' },
      'Which one is drawn is the hash of the decision’s id. For this story the id was looked for, so that you see its nudge; for anybody else chance decides.'))
}

function interval(pieces, arm) {
  const { from, p } = pieces.find((piece) => piece.arm === arm)
  return `[${from.toFixed(4)}, ${(from + p).toFixed(4)})`
}

const svg = (tag, attributes) => {
  const element = document.createElementNS('http://www.w3.org/2000/svg', tag)
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value)
  return element
}

/** Probabilities side by side, from 0 to 1, and where u fell. */
function axis(pieces, { u, nudge }) {
  const drawing = svg('svg', { viewBox: '0 0 1000 44', class: 'axis', role: 'img', 'aria-label': `u is ${u.toFixed(3)}, in the part of ${nudge.id}`, preserveAspectRatio: 'none' })
  pieces.forEach(({ arm, p, from }, i) =>
    drawing.append(svg('rect', { x: 1000 * from, y: 10, width: Math.max(1, 1000 * p - 3), height: 24, class: arm === nudge.id ? 'drawn' : `other o${i % 2}` })))
  drawing.append(svg('rect', { x: 1000 * u - 2, y: 0, width: 4, height: 44, class: 'u' }))
  return drawing
}

/** A bar for a probability; `tick`: the one before. */
function bar(p, tick) {
  const drawing = svg('svg', { viewBox: '0 0 100 10', class: 'bar', preserveAspectRatio: 'none', 'aria-hidden': 'true' })
  drawing.append(svg('rect', { x: 0, y: 0, width: 100, height: 10, class: 'track' }), svg('rect', { x: 0, y: 0, width: 100 * p, height: 10, class: 'fill' }))
  if (tick !== undefined) drawing.append(svg('rect', { x: Math.max(0, 100 * tick - 0.5), y: 0, width: 1, height: 10, class: 'tick' }))
  return drawing
}

/** What became of the decision. */
export function outcomes(name, entry) {
  const receipt = entry?.receipt
  if (!receipt) return null
  const line = (done, title, detail) => h('li', { class: done ? 'done' : 'open' }, h('b', {}, title), detail && ` ${detail}`)
  const of = (kind) => receipt.outcomes.find((one) => one.kind === kind)
  const [seen, reward, back, settled] = [of('activation'), of('reward'), of('retraction'), receipt.settled]
  const pressed = ['clicked', 'dismissed', 'declined'].find((sign) => entry.signs.has(sign))
  const isNone = receipt.nudge.id === 'none'
  return part('What came of it',
    h('ul', { class: 'line' },
      line(true, 'Decided', when(receipt.decided_at)),
      line(seen, isNone ? 'The page was there for a second' : 'Seen for a second', seen ? when(seen.received_at) : 'not yet: without it nothing is learned'),
      pressed && line(true, pressed[0].toUpperCase() + pressed.slice(1), 'by the person'),
      line(reward, 'Reward', reward ? `${plain(reward.value ?? 1)}, credited to this decision ${when(reward.received_at)}` : 'none yet; the app’s backend reports it'),
      back && line(true, 'Taken back', when(back.received_at)),
      line(settled, 'Settled', settled
        ? `reward ${plain(settled.reward)} (${settled.why}), ${settled.learned ? 'learned' : 'not learned'}`
        : `when its window ends, ${when(receipt.expires_at)}`)),
    h('p', {}, h('a', { href: `/panel/${name}/receipt/${receipt.decision_id}`, target: '_blank' }, 'The receipt, as JSON')))
}

/** What each arm has taught, and what the same question would be answered now. */
export function learned(entry, { policy }) {
  const before = Object.fromEntries((entry?.before?.arms ?? policy.arms).map((one) => [one.arm, one.learned]))
  const counts = (one) => (before[one.arm] === one.learned ? String(one.learned) : h('b', { class: 'changed' }, `${before[one.arm]} → ${one.learned}`))
  const then = entry?.receipt?.arms ?? {}
  const rows = policy.arms.map((one) => {
    const now = entry?.again?.[one.arm]
    const was = then[one.arm]?.propensity
    const moved = now !== undefined && was !== undefined && Math.abs(now - was) >= 0.0005
    return [one.arm, counts(one), one.mean_reward === null ? '–' : one.mean_reward.toFixed(2),
      was === undefined ? '–' : percent(was), now === undefined ? '–' : moved ? h('b', { class: 'changed' }, percent(now)) : percent(now)]
  })
  return part('What was learned',
    table(`Stage ${policy.stage}, by version ${policy.version} of its policy`, ['', 'learned', 'mean', 'then', 'now'], rows),
    h('p', { class: 'quiet' }, '“Then” is the probability that the decision was drawn with, “now” what the same question would be drawn from.'))
}

/** Which policy this is, and what differs from what is shipped. */
export function about(app, { policy }) {
  const stage = app.stages[policy.stage]
  return part('The policy',
    h('dl', {},
      h('dt', {}, 'policy'), h('dd', {}, policy.policy.name),
      h('dt', {}, 'window'), h('dd', {}, lasting(stage.window_seconds)),
      h('dt', {}, 'reward'), h('dd', {}, `${stage.reward.description ?? ''} (${plain(stage.reward.value)} ${app.currency})`),
      h('dt', {}, 'control group'), h('dd', {}, percent(stage.holdout))),
    h('p', { class: 'quiet' },
      `The shipped policy, “centred”, begins by showing nothing about 98 % of the time, because nudges may cost more than they bring. That is right for a shop and nothing to look at, so the stage “${app.stage}” learns by “hierarchical” here: docs/explanation/cost.md.`))
}
