/** Formats that a page can show. "gamified" is the older word for a scratch card. */
export type Format =
  | 'banner' | 'popup' | 'inline_widget' | 'tooltip' | 'walkthrough' | 'toast' | 'scratch_card' | 'progress_streak' | 'gamified'

type Json = string | number | boolean | null | Json[] | { [name: string]: Json }

/** Who the user is, signed by your backend; or what fetches that. It is asked once more when the service refuses it. */
export type Token = string | (() => string | Promise<string>)

export interface Options {
  /** The publishable key. Only `silent` does without. */
  key: string
  /** Address of the service, such as "https://nudges.shop.example". Left out: where this module was loaded from. */
  service?: string
  /** Token of users that `identify` names without one. */
  token?: Token
  /** Language of texts, such as "de-AT". Left out: that of the page, then that of the browser. */
  locale?: string
  /** Milliseconds from the question until it is too late to show anything; 2000 if left out. */
  patience?: number
  /** What this page can show; left out, everything. */
  formats?: Format[]
  /** Where unsent events are kept; localStorage if left out, null for memory only. */
  storage?: Storage | null
  /** No network and no storage, for previews: only `show` does something. */
  silent?: boolean
  /** Names of buttons, in place of those in the language of the content. */
  labels?: Partial<Record<'dismiss' | 'decline' | 'next' | 'back' | 'done' | 'reveal', string>>
  /** Makes ids of decisions, each a UUID. The draw depends on it: tests that repeat a draw give their own. */
  newId?(): string
  /** Called with what happened. */
  onChange?(change: Change): void
}

export interface Change {
  /** "decided": the service answered, also with "none". "activated": the nudge was seen for a second, which is reported now.
   * "clicked", "dismissed" and "declined" come after "closed".
   */
  type: 'decided' | 'shown' | 'activated' | 'clicked' | 'dismissed' | 'declined' | 'closed'
  decision: Decision
}

export interface DecideOptions {
  /** Stage of the journey; left out, the service knows it from the events. */
  stage?: string
  context?: Record<string, string | number | boolean | null>
  consent?: Record<string, boolean>
  /** Stock or deadlines, signed by your backend; or what fetches that. */
  evidence?: string | (() => string | Promise<string>)
}

export interface ShowOptions {
  /** Element, or its CSS selector, in place of the one that the catalogue names. */
  anchor?: Element | string
  /** Element that the surface is put into; document.body if left out. An inline widget is put into its anchor. */
  host?: Element
  /** How much of `of` or `days` of the payload is done. A streak is shown without a bar if it is left out. */
  progress?: number
  /** Follows the link of the button without loading a page. */
  navigate?(url: string): void
}

export interface Content {
  locale: string
  title: string
  text?: string
  button?: string
  alt?: string
  image?: string
  link?: string
  anchor?: string
  steps?: { title: string; text: string; anchor: string }[]
}

export interface Decision {
  decision_id: string
  stage: string
  /** `id` "none": nothing is shown. */
  nudge: { id: string; type: string; format: string; payload: { [name: string]: Json } }
  expires_at: string
  now: string
  duplicate?: boolean
  moment?: string | null
  content?: Content
  evidence?: { stock?: number; deadline?: string; as_of?: string }
}

/** A nudge in the page. */
export interface Surface {
  /** `<journey-nudge>`, with an open shadow root. */
  readonly element: HTMLElement
  /** Takes it away. Nothing is reported. */
  close(): void
}

/** Asks for nudges and shows them. No method throws, and no promise is rejected: errors are warnings on the console. */
export class Journey {
  constructor(options: Options)
  /** Says who the user is from now on. Events of another user stay that user's. */
  identify(userId: string | number, options?: { token?: Token }): void
  /** Reports something that the user did. It is kept, also across pages, until the service has it. */
  track(event: string, properties?: { [name: string]: Json }): void
  /** The decision for the user at this moment; null if it is late, refused or impossible. */
  decide(options?: DecideOptions): Promise<Decision | null>
  /** Shows the nudge of a decision. Null if nothing is shown: none is due, one is open, or it was answered before. */
  show(decision: Decision | null, options?: ShowOptions): Surface | null
  /** Decides, then shows. */
  nudge(options?: DecideOptions & ShowOptions): Promise<Surface | null>
  /** Closes the surface of the page, if there is one. Nothing is reported. */
  close(): void
}
