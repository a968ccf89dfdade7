export const story = {
  title: 'An account, left in the middle',
  before: [
    { text: 'Do the first two steps: name and contact', done: (s) => s.state.steps?.length > 1 },
    { text: 'Finish later', done: (s) => s.journey.visits > 1 || s.at === '/fintech/away' },
    { text: 'Three hours later', pass: 3 * 3600, done: (s) => s.journey.visits > 1 || s.now - Date.parse(s.journey.last_event_at) * 1000 > 1800e6 },
    { text: 'Open the app again: this is the moment', go: '/fintech/', done: (s) => s.made.length > 0 },
  ],
  look: 'Look at the walkthrough for a second, and follow it',
  reward: [{ text: 'Do the other four steps: you are verified', done: (s) => s.state.steps?.length === 6 }],
  again: [], // an account is opened once
  end: 'Now choose “Somebody else” and leave in the middle again: they are drawn from what Ada taught.',
}
