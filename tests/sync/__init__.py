"""vec sync."""
