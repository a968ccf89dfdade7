"""The browser part, served as it is: `journey.js`, a module for pages, and `journey.d.ts`, its types."""
