// Words of the panel: durations, numbers, reasons.

const UNITS = [['day', 86_400], ['hour', 3600], ['minute', 60], ['second', 1]]

/** Duration in words: "3 hours". */
export function lasting(seconds) {
  const [unit, size] = UNITS.find(([, size]) => seconds >= size && seconds % size === 0) ?? ['second', 1]
  const n = seconds / size
  return `${n} ${unit}${n === 1 ? '' : 's'}`
}

/** The same, where there is little room: "3 h". */
export const short = (seconds) => lasting(seconds).replace(/ (second|minute|hour)s?/, (_, unit) => ` ${{ second: 's', minute: 'min', hour: 'h' }[unit]}`)

export const percent = (p) => (p === 0 ? '0' : p < 0.0005 ? '< 0.1 %' : `${(100 * p).toFixed(1)} %`)

export const plain = (value) =>
  typeof value === 'number' ? String(Math.round(value * 100) / 100) : typeof value === 'boolean' ? (value ? 'yes' : 'no') : String(value)

export const when = (iso) =>
  new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short', hour: '2-digit', minute: '2-digit', second: '2-digit', timeZone: 'UTC' }).format(new Date(iso))
