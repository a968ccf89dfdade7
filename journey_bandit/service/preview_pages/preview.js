// The page of all nudges: filters, and a frame for each rendering. Words of the catalogue are text, never markup.

const WIDTHS = { narrow: '320 px', wide: '1024 px' } // as style.css has them
const STEP = 32 // cases that are added at a time
const RIGHT_TO_LEFT = /Arab|Hebr|Thaa|Syrc|Nkoo|Adlm/
const ALL = 'all'

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag)
  for (const [name, value] of Object.entries(attributes)) if (value !== undefined) node.setAttribute(name, value)
  node.append(...children)
  return node
}

const catalogue = await fetch('catalogue.json').then((reply) => (reply.ok ? reply.json() : Promise.reject(Error(reply.status))))
  .catch((error) => {
    document.querySelector('main').replaceChildren(el('p', { role: 'alert' }, `catalogue.json cannot be read: ${error.message}`))
    throw error
  })
const nudges = catalogue.stages.flatMap((stage) => stage.nudges.map((one) => ({ ...one, stage: stage.name, key: `${stage.name}.${one.nudge.id}` })))
const locales = [...new Set(nudges.flatMap((one) => Object.keys(one.contents)))]

const plain = (format) => format.replaceAll('_', ' ')
const direction = (locale) => (RIGHT_TO_LEFT.test(new Intl.Locale(locale).maximize().script) ? 'rtl' : 'ltr')
const DIRECTIONS = { ltr: 'left to right', rtl: 'right to left' }

// name → [label, {value: name of the choice}]; the first choice holds unless another is in the address.
const FILTERS = {
  stage: ['Stage', { '': 'All', ...named(catalogue.stages.map((stage) => stage.name)) }],
  nudge: ['Nudge', { '': 'All', ...Object.fromEntries(nudges.filter((one) => one.shown).map((one) => [one.key, one.key])) }],
  format: ['Format', { '': 'As declared', [ALL]: 'All', ...named(catalogue.formats, plain) }],
  scheme: ['Colours', { light: 'Light', dark: 'Dark', [ALL]: 'Light and dark' }],
  dir: ['Direction', { '': 'By language', ltr: 'Left to right', rtl: 'Right to left', [ALL]: 'Both' }],
  locale: ['Language', { '': 'First of each', [ALL]: 'All', ...named(locales) }],
  width: ['Width', { '': 'Both', ...WIDTHS }],
}

function named(values, name = (value) => value) {
  return Object.fromEntries(values.map((value) => [value, name(value)]))
}

const many = (n, what) => `${n} ${what}${n === 1 ? '' : 's'}`

const form = document.querySelector('form')
const main = document.querySelector('main')
const count = document.querySelector('.count')
let most = STEP

function wanted() {
  const asked = new URLSearchParams(location.search)
  return Object.fromEntries(Object.entries(FILTERS).map(([name, [, choices]]) => {
    const value = asked.get(name) ?? ''
    return [name, Object.hasOwn(choices, value) ? value : Object.keys(choices)[0]]
  }))
}

const address = (choices) => `?${new URLSearchParams(Object.entries(choices).filter(([name, value]) => value !== Object.keys(FILTERS[name][1])[0]))}`

// What is drawn of a nudge: every combination of what the filters leave, each in one width or both.
function cases(one, want) {
  const declared = one.nudge.format
  const of = { '': [declared], [ALL]: [declared, ...catalogue.formats.filter((format) => format !== declared)] }
  const own = Object.keys(one.contents)
  const tags = own.length ? own : [catalogue.locale]
  const some = { '': tags.slice(0, 1), [ALL]: tags }[want.locale] ?? tags.filter((tag) => tag === want.locale)
  const found = []
  for (const format of of[want.format] ?? [want.format])
    for (const locale of some)
      for (const scheme of want.scheme === ALL ? ['light', 'dark'] : [want.scheme])
        for (const dir of want.dir === ALL ? ['ltr', 'rtl'] : [want.dir || direction(locale)]) found.push({ format, locale, scheme, dir })
  return found
}

function drawn(one, { format, locale, scheme, dir }, widths) {
  const said = [plain(format), scheme, DIRECTIONS[dir], locale]
  const src = `frame.html?${new URLSearchParams({ stage: one.stage, nudge: one.nudge.id, format, locale, scheme, dir })}`
  const node = el('div', { class: 'case' }, el('p', { class: 'said' }, said.join(' · ')))
  for (const width of widths) {
    const name = `${one.key}: ${[...said, WIDTHS[width]].join(', ')}`
    const screen = el('div', { class: 'screen' }, el('iframe', { loading: 'lazy', title: name, src }))
    sizes.observe(screen)
    const link = el('a', { href: src, target: '_blank', 'aria-label': `Open alone: ${name}` }, 'Open alone')
    node.append(el('figure', { class: width }, screen, el('figcaption', {}, WIDTHS[width], ' ', link)))
  }
  return node
}

// Frames keep their width in pixels of the page inside, however little room there is.
const sizes = new ResizeObserver((entries) => {
  for (const { target, contentRect } of entries) target.style.setProperty('--scale', contentRect.width / target.firstChild.offsetWidth)
})

function section(one, want, room) {
  const all = cases(one, want)
  const widths = want.width ? [want.width] : Object.keys(WIDTHS)
  const { id, type, format } = one.nudge
  const own = Object.keys(one.contents)
  const node = el('section', { 'aria-label': one.key, 'data-nudge': one.key }, el('h3', {}, id))
  node.append(el('p', { class: 'facts' }, [plain(format), plain(type), own.join(', ')].filter(Boolean).join(' · ')))
  if (one.description) node.append(el('p', {}, one.description))
  if (!own.length) node.append(el('p', { class: 'note' }, 'It has no content: it is drawn from its payload.'))
  if (!all.length) node.append(el('p', { class: 'note' }, `It has no texts in ${want.locale}.`))
  if (!want.nudge) {
    const every = address({ ...want, stage: '', nudge: one.key, format: ALL, scheme: ALL, dir: ALL })
    node.append(el('p', {}, el('a', { href: every, 'aria-label': `${one.key} in every format, colour and direction` }, 'In every format, colour and direction')))
  }
  node.append(el('div', { class: 'cases' }, ...all.slice(0, room).map((each) => drawn(one, each, widths))))
  return [node, all.length]
}

function draw() {
  const want = wanted()
  sizes.disconnect()
  main.replaceChildren()
  let total = 0
  let kinds = 0
  for (const stage of catalogue.stages) {
    if (want.stage && want.stage !== stage.name) continue
    const mine = nudges.filter((one) => one.stage === stage.name && (!want.nudge || want.nudge === one.key))
    const part = el('section', { class: 'stage', 'aria-label': `Stage ${stage.name}` }, el('h2', {}, stage.name))
    if (stage.description) part.append(el('p', {}, stage.description))
    for (const one of mine.filter((each) => each.shown)) {
      const room = Math.max(0, most - total)
      const [node, number] = section(one, want, room)
      if (room || !number) part.append(node)
      total += number
      kinds += number > 0
    }
    const others = mine.filter((one) => !one.shown).map((one) => `${one.nudge.id} (${one.nudge.format})`)
    if (others.length) part.append(el('p', { class: 'note' }, `Not shown by pages: ${others.join(', ')}.`))
    if (mine.length && part.childElementCount > 1 + Boolean(stage.description)) main.append(part)
  }
  count.textContent = total ? `${most < total ? `${most} of ` : ''}${many(total, 'case')} of ${many(kinds, 'nudge')}` : 'Nothing is left by these choices.'
  if (total > most) {
    const more = el('button', { type: 'button' }, `Show ${Math.min(STEP, total - most)} more`)
    more.addEventListener('click', () => {
      const before = most
      most += STEP
      draw()
      main.querySelectorAll('.case')[before].querySelector('a').focus({ preventScroll: true })
    })
    main.append(more)
  }
}

function begin() {
  document.title = `${catalogue.title}: preview of nudges`
  document.querySelector('h1').textContent = catalogue.title
  const want = wanted()
  for (const [name, [label, choices]] of Object.entries(FILTERS)) {
    const select = el('select', { name, id: `choose-${name}` }, ...Object.entries(choices).map(([value, shown]) => el('option', { value }, shown)))
    select.value = want[name]
    form.append(el('div', {}, el('label', { for: select.id }, label), select))
  }
  form.append(el('a', { href: location.pathname }, 'Reset'))
  form.addEventListener('submit', (event) => event.preventDefault())
  form.addEventListener('change', () => {
    const chosen = Object.fromEntries(new FormData(form))
    if (chosen.stage && !chosen.nudge.startsWith(`${chosen.stage}.`)) form.elements.nudge.value = chosen.nudge = ''
    history.replaceState(null, '', address(chosen))
    most = STEP
    draw()
  })
  draw()
}

begin()
