// Elements, made of text alone: nothing here reads HTML.

/** Element with attributes (functions are listeners) and children (null is left out). */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag)
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === 'function') element.addEventListener(name, value)
    else if (value === true) element.setAttribute(name, '')
    else if (value !== false && value != null) element.setAttribute(name, String(value))
  }
  element.append(...children.flat().filter((child) => child != null && child !== false))
  return element
}

/** Reply of this app's backend to a question, or (with a body) to an action. */
export async function ask(path, body) {
  const sent = body && { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) }
  const reply = await fetch(path, sent)
  if (!reply.ok) throw Error(`${path}: ${reply.status} ${await reply.text()}`)
  return reply.json()
}

export const money = (amount) => new Intl.NumberFormat('en', { style: 'currency', currency: 'EUR' }).format(amount)
