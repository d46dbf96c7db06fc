/*
 * What Kestrel's clients call on port 2229: framed transport, binary protocol. Written for this project; the server reads
 * it when it starts, and clients can be generated from it. docs/kestrel-protocols.md says what each call does.
 *
 * A number that a client knows must not change: fields are only added.
 */

namespace py kestrel

/* An item that was handed out. */
struct Item {
  1: binary data
  2: i64 id    /* for confirm and abort; 0: it needs neither */
}

/* A queue, as it is now. */
struct QueueInfo {
  1: optional binary head_item
  2: i64 items              /* that wait */
  3: i64 bytes              /* of these */
  4: i64 journal_bytes      /* of its records on disk */
  5: i64 age                /* of the head, in milliseconds */
  6: i32 waiters            /* clients that wait for an item */
  7: i32 open_transactions  /* items that are open */
}

enum Status {
  NOT_CONFIGURED = 0
  QUIESCENT = 1
  READ_ONLY = 2
  UP = 3
}

service Kestrel {
  i32 put(1: string queue_name, 2: list<binary> items, 3: i32 expiration_msec = 0)
  list<Item> get(1: string queue_name, 2: i32 max_items, 3: i32 timeout_msec = 0, 4: i32 auto_abort_msec = 0)
  i32 confirm(1: string queue_name, 2: set<i64> ids)
  i32 abort(1: string queue_name, 2: set<i64> ids)
  QueueInfo peek(1: string queue_name)
  void flush_queue(1: string queue_name)
  void flush_all_queues()
  void delete_queue(1: string queue_name)
  Status current_status()
  void set_status(1: Status status)
  string get_version()
}
