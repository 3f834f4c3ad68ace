"""Answers HTTP: routes, bodies, errors, pages from templates. The only room that knows starlette and Jinja2."""
