export const story = {
  title: 'A payment, hesitated at',
  before: [
    { text: 'Choose the monthly plan', done: (s) => Boolean(s.journey.events.plan_chosen) },
    { text: 'Hesitate on the payment page for half a minute', pass: 30, done: (s) => s.made.length > 0 },
  ],
  look: 'Look at the offer for a second',
  reward: [
    { text: 'Take the seven days, and go on to the card', done: (s) => s.state.trial_days > 0 },
    { text: 'Enter the card (any number will do): nothing is ever shown on that page', done: (s) => Boolean(s.state.pays_at) },
    { text: 'The trial ends, and the first payment is made', pass: 8 * 86_400, done: (s) => Boolean(s.journey.events.paid) },
  ],
  again: [
    { text: 'Come back to the plans, and choose one once more', go: '/subscription/', done: (s) => s.journey.events.plan_chosen?.count > 1 },
    { text: 'Hesitate again', pass: 30, done: () => false },
  ],
  end: 'The second decision was drawn from what the first one taught.',
}
