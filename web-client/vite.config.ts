import { defineConfig } from 'vite';

/** A library of two entries. Dependencies stay imports, so that an application has one copy. */
export default defineConfig({
  build: {
    target: 'es2022',
    minify: false,
    sourcemap: true,
    lib: { entry: { index: 'src/index.ts', react: 'src/react.ts' }, formats: ['es'] },
    rolldownOptions: { external: [/^[^./]/] },
  },
});
