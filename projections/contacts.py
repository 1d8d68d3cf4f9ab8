"""Whom to reach at each site."""

from datetime import datetime
from typing import NamedTuple

from sitelog.projections._projection import Projection, field_of
from sitelog.streams.events import ContactAdded, ContactChanged, ContactRemoved


class Contact(NamedTuple):
    """One contact of one site."""

    site_id: str
    contact_id: str
    name: str | None
    email: str | None
    phone: str | None
    role: str | None
    removed_at: datetime | None


contacts = Projection(name="contacts", version=1, key=("site_id", "contact_id"), row=Contact, tombstone="removed_at")


@contacts.creates(ContactAdded)
def add(event: ContactAdded) -> Contact:
    """Begin a contact."""
    values = event.contact
    return Contact(event.site_id, event.contact_id, values.name, values.email, values.phone, values.role, None)


contacts.merges(ContactChanged, {name: field_of(name) for name in ("name", "email", "phone", "role")})


@contacts.changes(ContactRemoved)
def remove(contact: Contact, event: ContactRemoved) -> Contact:
    """Keep the row: who was reached in the past stays known."""
    return contact._replace(removed_at=event.event_timestamp)
