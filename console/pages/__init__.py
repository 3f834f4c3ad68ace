"""The routes of the console, a module for each area: what a page shows, and what an action does."""
