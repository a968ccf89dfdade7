const viewed = ({ journey }, times) => (journey.events.product_viewed?.count ?? 0) >= times

export const story = {
  title: 'A coat, looked at three times',
  before: [
    { text: 'Open the wool coat', done: (s) => viewed(s, 1) },
    { text: 'Go back, and look at it again', done: (s) => viewed(s, 2) },
    { text: 'And once more: this is the moment', done: (s) => viewed(s, 3) },
  ],
  look: 'Look at the nudge for a second. The number is the true stock',
  reward: [{ text: 'Put the coat into the bag', done: (s) => Boolean(s.state.bag?.length) }],
  again: [{ text: 'Come back, and look at the rain parka three times', go: '/fashion/', done: () => false }],
  end: 'The second decision was drawn from what the first one taught.',
}
