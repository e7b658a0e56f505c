import js from '@eslint/js';
import ts from 'typescript-eslint';

export default ts.config(
  { ignores: ['lib', 'node_modules'] },
  js.configs.recommended,
  ...ts.configs.strict,
  {
    rules: {
      '@typescript-eslint/ban-ts-comment': ['error', { 'ts-expect-error': true, 'ts-ignore': true, 'ts-nocheck': true }],
      '@typescript-eslint/no-explicit-any': 'error',
      'no-restricted-properties': [
        'error',
        { property: 'innerHTML', message: 'Text that reaches a page is text.' },
        { property: 'outerHTML', message: 'Text that reaches a page is text.' },
        { property: 'insertAdjacentHTML', message: 'Text that reaches a page is text.' }
      ],
      'no-restricted-syntax': [
        'error',
        { selector: "JSXAttribute[name.name='dangerouslySetInnerHTML']", message: 'Text that reaches a page is text.' }
      ]
    }
  }
);
