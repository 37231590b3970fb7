// Types of attn's responses and frames (CONTRACT §4), for this page and for other clients.

export type Priority = "urgent" | "high" | "normal" | "low";
export type State = "unread" | "read" | "decided" | "resolved";
export type Reason = "resolved" | "decided" | "dismissed" | "snoozed" | "retargeted" | "grouped" | "beyond";

export interface Step { title: string; mode: "auto" | "confirm" }
export interface Person { type: "user" | "ai"; id: string; name?: string }

/** One row of the inbox. Fields without a value are omitted; times are RFC 3339. */
export interface Item {
  id: string; workspace_id: string; kind: string; source_id: string; title: string; state: State;
  priority: Priority; blocking: boolean; created_at: string; updated_at: string; revision: number;
  /** `rank_reasons`: the band, then `refused`, `undeliverable` or `unconfirmed` (a decision came back), `overdue`, `blocking`, `pinned`. The list is sorted by `rank` as text, then by `id`. */
  band: Priority; due_at?: string; overdue: boolean; rank_reasons: string[]; rank: string;
  target_user_id?: string; target_role?: string; body_md?: string; payload?: Record<string, unknown>; // numbers that a double cannot represent exactly are `String` objects (exact.js)
  sender_type?: string; sender_id?: string; sender_name?: string;
  read_at?: string; resolved_at?: string; resolved_by_user_id?: string; resolved_action?: string;
  cluster?: string; stack?: string; conversation_id?: string; case_id?: string; case_title?: string;
  session_id?: string; action_url?: string; expires_at?: string;
  risk?: "low" | "medium" | "high" | "critical"; reversible?: boolean;
  pipeline?: string; step?: string; error?: string; incident_key?: string; task_id?: string; proof_id?: string;
  plan?: { auto: number; confirm: number; steps: Step[] };
  editor?: Person; clusters?: string[]; count?: number; members?: string[]; dismissed_until?: string;
  /** An item that asks (CONTRACT §7) has `ask`, `digest` and `deciders`. `needed`: votes still missing, only with a quorum. */
  source?: string; ask?: Ask; digest?: string; deciders?: Deciders; votes?: Vote[]; needed?: number; decision?: Decision;
}

export type Does = "approve" | "reject" | "edit" | "respond" | "ignore" | "retry" | "acknowledge" | "choose";
export interface Choice { const: string; title?: string }
/** A field of a form: a subset of JSON Schema. Numbers may be `String` objects (exact.js). */
export interface FormField {
  type: "string" | "number" | "integer" | "boolean" | "array"; title?: string; description?: string; default?: any;
  minLength?: number; maxLength?: number; format?: "email" | "uri" | "date" | "date-time"; minimum?: number; maximum?: number;
  enum?: string[]; enumNames?: string[]; oneOf?: Choice[]; items?: { enum?: string[]; anyOf?: Choice[] }; minItems?: number; maxItems?: number;
}
export interface Form { type?: "object"; properties: Record<string, FormField>; required?: string[] }
/** One answer that a person may give. */
export interface Option {
  id: string; does: Does; title?: string; style?: "primary" | "danger" | "plain"; comment?: "no" | "optional" | "required"; form?: Form; safe?: boolean;
}
/** What will be done. */
export interface Action {
  name: string; args?: Record<string, any>; args_schema?: Record<string, any>; editable?: boolean | string[];
  risk?: "low" | "medium" | "high" | "critical"; reversible?: boolean;
}
/** What a person is asked. `options` are those of the source, else those of the item's kind. */
export interface Ask {
  id?: string; options: Option[]; form?: Form; action?: Action; deciders?: { users?: string[]; roles?: string[]; not?: "requester"[]; requester?: string };
  quorum?: { approve?: number }; expires_at?: string; on_expiry?: string; batch?: { key: string }; reply?: { to?: string; confirm?: boolean };
}
/** Who may decide, of those who see the item: the users and the roles, without the excluded users. */
export interface Deciders { users: string[]; roles: string[]; excluded: string[] }
/** One person's answer; `vote` is the id of an option. */
export interface Vote { user: string; name?: string; role?: string; at: string; vote: string; comment?: string }
/** `returned`: why the item is back in the list. An expired decision has no option. */
export interface Decision {
  id: string; option?: string; does?: Does; at: string; undo_until: string; actors?: Vote[]; reason?: string;
  state: "made" | "sending" | "applied" | "refused" | "undeliverable" | "taken_back" | "expired"; returned?: "refused" | "undeliverable" | "unconfirmed";
}
/** One entry of GET /org/me/decisions. `edited`: JSON pointers of the arguments that a person changed. `to`: the endpoint. */
export interface DecisionRow extends Decision {
  item: string; kind: string; source: string; source_id: string; question: { id: string; digest: string }; opened_at: string; changed_at: string;
  confirm: boolean; title?: string; cluster?: string; option_title?: string; form?: Record<string, any>; args?: Record<string, any>; edited?: string[];
  comment?: string; expires_at?: string; delivered_at?: string; to?: string; batch?: string;
}

/** Counts of the whole inbox, not of the window. `by_priority` counts the source's priority, not the band. */
export interface Counts {
  total: number; unread: number; by_kind: Record<string, number>; by_priority: Partial<Record<Priority, number>>;
}

export interface Done {
  type: string; at: string; item?: string; kind: string; title?: string; cluster?: string; case_id?: string;
  session_id?: string; by_user_id?: string;
}
export interface Activity {
  window: string; sessions_completed: number; plans_approved: number; actions_resolved: number; recent: Done[];
}
export interface Draft {
  draft_id: string; cluster?: string; stack?: string; title?: string; last_touched_at: string;
  has_ai_edits: boolean; co_editors: Person[];
}
export interface Widget { id: string; visible: boolean }
export interface Preferences { pinned_clusters: string[]; widgets: Widget[] }
export interface Me {
  user_id: string; name?: string; workspace_id: string; role: string; expires_at: string; workspaces: { id: string; role: string }[]; session_id?: string;
}

/** A key of a source, without its text (GET /org/me/keys). `last_used`: the begin of the newest hour in which it was used. */
export interface SourceKey {
  id: string; name: string; topics: string[]; source?: string; created_at: string; created_by: string; expires_at?: string; last_used?: string;
}

/** One frame of the feed, as `sse.js` parses it. `retry`: milliseconds to wait before a reconnect. */
export interface Frame { id?: string; event: string; data: any; retry?: number }

/** The result of `fold.js`: the client's copy of the first N items of the ranked list. */
export interface Inbox {
  /** Send it as `Last-Event-ID`; null before the first snapshot. */
  readonly cursor: string | null;
  readonly items: readonly Item[];
  readonly counts: Counts;
  readonly activity: Activity | null;
  readonly drafts: readonly Draft[];
  readonly preferences: Preferences;
}
