"""Names and e-mail addresses → ids, in chunks, in front of the write path and of sync.

In: `NamedValue`s. Out: `AttributeValueUpsert`s, or the error of an item that can't be resolved.
Imports scheduling and what lies below it.
"""
