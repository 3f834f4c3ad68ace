"""The kiosk: a web page and HTTP API to look pictures up and to teach the device new items.

This room owns the HTTP server, the page's state, and the taught items: their pictures, embeddings and upload. It never
holds up the frame path, and never changes the gallery that was sent to the device.

Read `kiosk` first, then `taught_items`; `open_kiosk` connects the parts.
"""
