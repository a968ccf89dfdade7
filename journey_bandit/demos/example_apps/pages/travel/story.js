export const story = {
  title: 'A flight, chosen and left alone',
  before: [
    { text: 'Search for flights to Lisbon', done: (s) => Boolean(s.journey.events.searched) },
    { text: 'Choose the one at 06:40', done: (s) => Boolean(s.journey.events.offer_chosen) },
    { text: 'Hesitate', pass: 600, done: (s) => s.made.length > 0 },
  ],
  look: 'Look at the offer for a second. It truly ends when its clock does',
  reward: [{ text: 'Take the offer, and book', done: (s) => Boolean(s.state.paid) }],
  again: [
    { text: 'Come back: choose another flight', go: '/travel/flights?to=Athens', done: (s) => s.journey.events.offer_chosen?.count > 1 && s.journey.events.searched.count > 1 }, // the page's event too, before time passes
    { text: 'Hesitate again', pass: 600, done: () => false },
  ],
  end: 'The second decision was drawn from what the first one taught. Discounts stand back for a week after one was shown.',
}
