/** The face for ES modules: `import` and `require` load one implementation, so that classes and sessions can be shared. */
export * from './index.js';
