export const story = {
  title: 'A purchase, and the one after it',
  before: [
    { text: 'Open the shop', done: (s) => Boolean(s.journey.events.shop_opened) },
    { text: 'Buy the spark pack', done: (s) => s.state.orders > 0 },
    { text: 'Eight days later', pass: 8 * 86_400, done: (s) => s.journey.moment === 'week_after_purchase' || s.made.length > 0 },
    { text: 'Open the game, and play a round: this is the moment', go: '/gaming/', done: (s) => s.made.length > 0 },
  ],
  look: 'Look at the nudge for a second',
  reward: [{ text: 'Go to the shop, and buy again', done: (s) => s.state.orders > 1 }],
  again: [{ text: 'Come back a week later, and play a round', go: '/gaming/', done: () => false }],
  end: 'The second decision was drawn from what the first one taught.',
}
